//! The mesh's own workloads, found by what they are called.

use std::time::Duration;

use lab::cluster::access::{Cluster, paths};
use serde_json::Value;

use crate::scenario::Skip;

/// What the workload of the node agent is called: ours, then Istio's.
const AGENTS: &[&str] = &["node-agent", "istio-cni-node"];
const ZTUNNELS: &[&str] = &["ztunnel"];

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    /// The caller may not look for them.
    pub hidden: bool,
    pub agent: Option<Part>,
    pub ztunnel: Option<Part>,
}

/// A DaemonSet of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub namespace: String,
    pub name: String,
    /// The images of its containers.
    pub images: Vec<String>,
    /// What its pods are found by.
    pub selector: String,
}

impl Parts {
    pub(super) async fn find(cluster: &Cluster) -> anyhow::Result<Self> {
        let sets = match cluster.list("/apis/apps/v1/daemonsets").await {
            Ok(sets) => sets,
            // Who has only a namespace does without.
            Err(error) if error.code() == Some(403) => {
                return Ok(Self { hidden: true, ..Self::default() });
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { hidden: false, agent: pick(&sets, AGENTS), ztunnel: pick(&sets, ZTUNNELS) })
    }

    pub(crate) fn agent(&self) -> anyhow::Result<&Part> {
        Ok(self.agent.as_ref().ok_or_else(|| self.missing(AGENTS))?)
    }

    pub(crate) fn ztunnel(&self) -> anyhow::Result<&Part> {
        Ok(self.ztunnel.as_ref().ok_or_else(|| self.missing(ZTUNNELS))?)
    }

    fn missing(&self, names: &[&str]) -> Skip {
        if self.hidden {
            return Skip("needs the right to list DaemonSets of all namespaces".to_owned());
        }
        Skip(format!("no DaemonSet is called *{}", names.join(" or *")))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Part> {
        [&self.agent, &self.ztunnel].into_iter().flatten()
    }
}

impl Part {
    /// Its path.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", paths::group("apps/v1", &self.namespace, "daemonsets"), self.name)
    }

    /// A setting of its containers, from their environment.
    pub(crate) async fn setting(
        &self,
        cluster: &Cluster,
        name: &str,
    ) -> anyhow::Result<Option<String>> {
        let set = cluster.get(&self.path()).await?;
        let containers = set["spec"]["template"]["spec"]["containers"].as_array();
        let settings = containers.into_iter().flatten().filter_map(|one| one["env"].as_array());
        let found = settings.flatten().find(|setting| setting["name"] == name);
        Ok(found.and_then(|setting| setting["value"].as_str()).map(str::to_owned))
    }

    /// What its pods on a node have written last; nothing where that cannot be read.
    pub(crate) async fn log_on(&self, cluster: &Cluster, node: &str) -> String {
        let mut all = String::new();
        for pod in self.pods_on(cluster, node).await.unwrap_or_default() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            all += &cluster.logs(&self.namespace, name, None, 2000).await.unwrap_or_default();
        }
        all
    }

    /// Its pods on a node.
    pub(crate) async fn pods_on(
        &self,
        cluster: &Cluster,
        node: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let on = format!("spec.nodeName={node}");
        let query = [("labelSelector", self.selector.as_str()), ("fieldSelector", on.as_str())];
        let path = paths::with_query(&paths::core(&self.namespace, "pods"), &query);
        Ok(cluster.list(&path).await?)
    }

    /// The name of the program that its first container runs.
    pub(crate) async fn program(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let set = cluster.get(&self.path()).await?;
        let command = &set["spec"]["template"]["spec"]["containers"][0]["command"][0];
        let unknown = || Skip(format!("DaemonSet {} does not say what it runs", self.name));
        let command = command.as_str().ok_or_else(unknown)?;
        Ok(command.rsplit('/').next().unwrap_or(command).to_owned())
    }

    /// Waits until all its pods are as the object is wanted now, and ready.
    pub(crate) async fn until_rolled_out(
        &self,
        cluster: &Cluster,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let set = cluster.get(&self.path()).await?;
        let generation = set["metadata"]["generation"].as_u64();
        let rolled = |set: &Value| {
            let status = &set["status"];
            let wanted = &status["desiredNumberScheduled"];
            status["observedGeneration"].as_u64() >= generation
                && ["updatedNumberScheduled", "numberReady", "numberAvailable"]
                    .iter()
                    .all(|count| status[*count] == *wanted)
        };
        cluster.wait(&self.path(), "rolled out", patience, rolled).await?;
        Ok(())
    }
}

fn pick(sets: &[Value], names: &[&str]) -> Option<Part> {
    let is_it = |set: &&Value| {
        let name = set["metadata"]["name"].as_str().unwrap_or_default();
        names.iter().any(|wanted| name == *wanted || name.ends_with(&format!("-{wanted}")))
    };
    let set = sets.iter().find(is_it)?;
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    let images = containers.into_iter().flatten().filter_map(|one| one["image"].as_str());
    let labels = set["spec"]["selector"]["matchLabels"].as_object()?;
    let selector =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    Some(Part {
        namespace: set["metadata"]["namespace"].as_str()?.to_owned(),
        name: set["metadata"]["name"].as_str()?.to_owned(),
        images: images.map(str::to_owned).collect(),
        selector: selector.collect::<Vec<_>>().join(","),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_found_by_the_end_of_their_names() {
        let set = |name: &str| {
            json!({
                "metadata": {"namespace": "sluice-system", "name": name},
                "spec": {
                    "selector": {"matchLabels": {"app": name, "part": "of"}},
                    "template": {"spec": {"containers": [{"image": "sluice:1"}]}},
                },
            })
        };
        let sets = [set("kube-proxy"), set("sluice-node-agent"), set("sluice-ztunnel")];
        let agent = pick(&sets, AGENTS).unwrap();
        assert_eq!(agent.selector, "app=sluice-node-agent,part=of");
        assert_eq!(agent.images, ["sluice:1"]);
        let path = "/apis/apps/v1/namespaces/sluice-system/daemonsets/sluice-node-agent";
        assert_eq!(agent.path(), path);
        assert_eq!(pick(&sets, ZTUNNELS).unwrap().name, "sluice-ztunnel");
        assert_eq!(pick(&[set("myztunnel")], ZTUNNELS), None);
    }
}
