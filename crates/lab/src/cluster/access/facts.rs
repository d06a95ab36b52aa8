//! What a cluster is, and what the caller may do in it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{AccessError, Cluster, paths};

/// A node, as far as the suite cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its addresses in the cluster's network.
    pub ips: Vec<IpAddr>,
    /// Whether pods without tolerations can run there.
    pub takes_pods: bool,
    /// Version of its kernel.
    pub kernel: String,
    /// Name and version of its container runtime.
    pub runtime: String,
    /// Version of its kubelet.
    pub kubelet: String,
    /// The whole object.
    pub object: Value,
}

/// The API server's answer to "may I?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// Yes.
    Allowed,
    /// No, and why.
    Refused(String),
}

impl Cluster {
    /// The version of the API server, for example `v1.36.3`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn version(&self) -> Result<String, AccessError> {
        let version = self.get("/version").await?;
        Ok(version["gitVersion"].as_str().unwrap_or("unknown").to_owned())
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn nodes(&self) -> Result<Vec<NodeFacts>, AccessError> {
        let mut nodes: Vec<_> =
            self.list(paths::NODES).await?.into_iter().map(NodeFacts::read).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Whether the caller may do `verb` on `resource` of the core API in a namespace.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn may(
        &self,
        verb: &str,
        resource: &str,
        namespace: &str,
    ) -> Result<Review, AccessError> {
        let attributes = json!({"verb": verb, "resource": resource, "namespace": namespace});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.post(path, &review).await?;
        if answer["status"]["allowed"] == true {
            return Ok(Review::Allowed);
        }
        let why = answer["status"]["reason"].as_str().filter(|reason| !reason.is_empty());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        Ok(Review::Refused(format!("no right to {verb} {resource} in {namespace}{why}")))
    }

    /// Whether an object would be taken, admission included: it is asked for as a dry run.
    ///
    /// # Errors
    /// [`AccessError`], but not for a refusal.
    pub async fn would_accept(&self, path: &str, object: &Value) -> Result<Review, AccessError> {
        match self.create(&paths::with_query(path, &[("dryRun", "All")]), object).await {
            Ok(_) => Ok(Review::Allowed),
            Err(AccessError::Refused { code: 403 | 422, message, .. }) => {
                Ok(Review::Refused(message))
            }
            Err(error) => Err(error),
        }
    }
}

impl NodeFacts {
    /// What a pod tells of the node that it was put on, for who may not read nodes. `None`
    /// until both are known.
    #[must_use]
    pub fn of_pod(pod: &Value) -> Option<Self> {
        let name = pod["spec"]["nodeName"].as_str()?;
        let ips = pod["status"]["hostIPs"].as_array()?;
        let ips: Vec<_> = ips.iter().filter_map(|one| one["ip"].as_str()?.parse().ok()).collect();
        let unknown = || "unknown".to_owned();
        (!ips.is_empty()).then(|| Self {
            name: name.to_owned(),
            ips,
            takes_pods: true,
            kernel: unknown(),
            runtime: unknown(),
            kubelet: unknown(),
            object: Value::Null,
        })
    }

    fn read(object: Value) -> Self {
        let info = &object["status"]["nodeInfo"];
        let text = |key: &str| info[key].as_str().unwrap_or("unknown").to_owned();
        let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
        let inside = addresses.filter(|address| address["type"] == "InternalIP");
        Self {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ips: inside.filter_map(|address| address["address"].as_str()?.parse().ok()).collect(),
            takes_pods: takes_pods(&object),
            kernel: text("kernelVersion"),
            runtime: text("containerRuntimeVersion"),
            kubelet: text("kubeletVersion"),
            object,
        }
    }
}

fn takes_pods(node: &Value) -> bool {
    let ready = node["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
    let mut taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let closed = taints.any(|taint| taint["effect"] != "PreferNoSchedule");
    ready && !closed && node["spec"]["unschedulable"] != true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tells_of_its_node() {
        let mut pod = json!({"spec": {"nodeName": "n1"}, "status": {}});
        assert_eq!(NodeFacts::of_pod(&pod), None);
        pod["status"]["hostIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        let node = NodeFacts::of_pod(&pod).unwrap();
        assert_eq!((node.name.as_str(), node.ips.len(), node.takes_pods), ("n1", 2, true));
    }

    #[test]
    fn nodes_take_pods_when_ready_and_open() {
        let mut node = json!({
            "metadata": {"name": "n1"},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                ],
                "nodeInfo": {"kernelVersion": "6.18", "containerRuntimeVersion": "containerd://1.6"},
            },
        });
        let facts = NodeFacts::read(node.clone());
        assert!(facts.takes_pods);
        assert_eq!(facts.ips.len(), 2);
        assert_eq!((facts.kernel.as_str(), facts.kubelet.as_str()), ("6.18", "unknown"));
        node["spec"] = json!({"taints": [{"key": "control-plane", "effect": "NoSchedule"}]});
        assert!(!NodeFacts::read(node.clone()).takes_pods);
        node["spec"] = json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]});
        assert!(NodeFacts::read(node.clone()).takes_pods);
        node["status"]["conditions"][0]["status"] = json!("Unknown");
        assert!(!NodeFacts::read(node).takes_pods);
    }
}
