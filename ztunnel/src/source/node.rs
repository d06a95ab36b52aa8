//! Who we are to the control plane.

use mesh::proto::envoy::config::core::v3::Node;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// What a control plane wants to know about its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Kubernetes node name.
    pub node: String,
    /// Cluster id.
    pub cluster: String,
    /// Name of ztunnel's own pod; empty outside Kubernetes.
    pub pod_name: String,
    /// Its namespace.
    pub pod_namespace: String,
    /// Its address; control planes accept a made-up one.
    pub instance_ip: String,
}

impl NodeInfo {
    pub(super) fn message(&self) -> Node {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let addresses = ListValue { values: vec![text(&self.instance_ip)] };
        let fields = [
            ("NAME", text(&self.pod_name)),
            ("NAMESPACE", text(&self.pod_namespace)),
            ("INSTANCE_IPS", Value { kind: Some(Kind::ListValue(addresses)) }),
            ("NODE_NAME", text(&self.node)),
            ("CLUSTER_ID", text(&self.cluster)),
        ];
        Node {
            id: format!(
                "ztunnel~{}~{}.{}~{}.svc.cluster.local",
                self.instance_ip, self.pod_name, self.pod_namespace, self.pod_namespace
            ),
            metadata: Some(Struct {
                fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            }),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }
    }
}
