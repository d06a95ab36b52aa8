//! What the cluster is made of, for the report.

use std::collections::BTreeSet;

use lab::cluster::access::{Cluster, NodeFacts};
use serde_json::Value;

use super::parts::Parts;
use crate::report::Versions;

/// Asks for everything; what cannot be found out is left out.
pub(super) async fn versions(
    cluster: &Cluster,
    nodes: &[NodeFacts],
    parts: &Parts,
    cni: Option<&str>,
) -> anyhow::Result<Versions> {
    let cni = match cni {
        Some(named) => Some(named.to_owned()),
        None => found(cluster, nodes).await,
    };
    let images: BTreeSet<_> = parts.all().flat_map(|part| part.images.iter().cloned()).collect();
    Ok(Versions {
        kubernetes: Some(cluster.version().await?),
        cni,
        kernel: all(nodes, |node| &node.kernel),
        runtime: all(nodes, |node| &node.runtime),
        subject: images.into_iter().collect(),
    })
}

/// The primary CNI plugin, by the DaemonSet that brings it, with the version of its image;
/// else by what its daemon writes on nodes, or by the kinds that it has brought.
async fn found(cluster: &Cluster, nodes: &[NodeFacts]) -> Option<String> {
    let sets = cluster.list("/apis/apps/v1/daemonsets").await.unwrap_or_default();
    let found = sets.iter().find_map(by_daemon_set).or_else(|| nodes.iter().find_map(by_node));
    match found {
        Some(found) => Some(found),
        None => by_groups(&cluster.get("/apis").await.unwrap_or_default()),
    }
}

fn by_groups(discovery: &Value) -> Option<String> {
    const KNOWN: &[(&str, &str)] = &[("cilium.io", "cilium"), ("crd.projectcalico.org", "calico")];
    let groups: Vec<_> = discovery["groups"].as_array()?.iter().map(|one| &one["name"]).collect();
    let (_, cni) = KNOWN.iter().find(|(group, _)| groups.iter().any(|name| *name == group))?;
    Some((*cni).to_owned())
}

fn by_daemon_set(set: &Value) -> Option<String> {
    const KNOWN: &[(&str, &str)] = &[
        ("calico-node", "calico"),
        ("cilium", "cilium"),
        ("kube-flannel-ds", "flannel"),
        ("kindnet", "kindnet"),
        ("aws-node", "amazon-vpc-cni"),
    ];
    let name = set["metadata"]["name"].as_str()?;
    let (_, cni) = KNOWN.iter().find(|(daemon, _)| *daemon == name)?;
    let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    let image = image.map(|image| image.split('@').next().unwrap_or(image));
    let version = image.and_then(|image| image.rsplit_once(':')).map(|(_, tag)| tag);
    Some(version.map_or_else(|| (*cni).to_owned(), |version| format!("{cni} {version}")))
}

fn by_node(node: &NodeFacts) -> Option<String> {
    const KNOWN: &[(&str, &str)] = &[
        ("projectcalico.org/IPv4Address", "calico"),
        ("flannel.alpha.coreos.com/backend-type", "flannel"),
        ("network.cilium.io/ipv4-cilium-host", "cilium"),
    ];
    let annotations = &node.object["metadata"]["annotations"];
    KNOWN.iter().find(|(key, _)| !annotations[*key].is_null()).map(|(_, cni)| (*cni).to_owned())
}

fn all(nodes: &[NodeFacts], of: impl Fn(&NodeFacts) -> &String) -> Option<String> {
    let values: BTreeSet<_> = nodes.iter().map(|node| of(node).as_str()).collect();
    (!values.is_empty()).then(|| values.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_primary_plugin_is_known_by_its_daemon() {
        let set = |name: &str, image: &str| {
            let containers = json!([{"image": image}]);
            json!({"metadata": {"name": name},
                "spec": {"template": {"spec": {"containers": containers}}}})
        };
        let cilium = set("cilium", "quay.io/cilium/cilium:v1.19.1@sha256:00");
        assert_eq!(by_daemon_set(&cilium).as_deref(), Some("cilium v1.19.1"));
        assert_eq!(by_daemon_set(&set("kube-proxy", "kube-proxy:v1")), None);
        let discovery = json!({"groups": [{"name": "apps"}, {"name": "cilium.io"}]});
        assert_eq!(by_groups(&discovery).as_deref(), Some("cilium"));
        assert_eq!(by_groups(&json!(null)), None);
    }
}
