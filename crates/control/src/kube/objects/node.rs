//! Nodes: where they are.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::resource;
use crate::facts::NodeFacts;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct Node {
    metadata: ObjectMeta,
}

resource!(Node, ClusterResourceScope, "" "v1" "Node" "nodes");

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let labels: BTreeMap<_, _> = node.metadata.labels.unwrap_or_default();
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            region: label(REGION),
            zone: label(ZONE),
            subzone: label(SUBZONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_where_its_labels_say() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "n1", "labels": {
                "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z",
                "topology.istio.io/subzone": "s", "other": "x",
            } },
            "status": { "conditions": "of any form" },
        }))
        .unwrap();
        let facts = NodeFacts::from(node);
        assert_eq!(
            [&facts.name, &facts.region, &facts.zone, &facts.subzone],
            ["n1", "r", "z", "s"]
        );
    }
}
