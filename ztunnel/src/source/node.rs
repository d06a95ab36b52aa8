//! Who we are to the control plane.

use std::collections::BTreeMap;

use mesh::proto::envoy::config::core::v3::Node;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// What a control plane wants to know about its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Kubernetes node name; empty where there is no node.
    pub node: String,
    /// Cluster id.
    pub cluster: String,
    /// Name of ztunnel's own pod; empty outside Kubernetes.
    pub pod_name: String,
    /// Its namespace.
    pub pod_namespace: String,
    /// Its address; control planes accept a made-up one.
    pub instance_ip: String,
    /// What the operator adds, by key; our own keys win.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl NodeInfo {
    pub(super) fn message(&self) -> Node {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [
            ("NAME", text(&self.pod_name)),
            ("NAMESPACE", text(&self.pod_namespace)),
            // A text with commas: istiod refuses the stream when it is a list.
            ("INSTANCE_IPS", text(&self.instance_ip)),
            ("NODE_NAME", text(&self.node)),
            ("CLUSTER_ID", text(&self.cluster)),
        ];
        let told = |key: &str| key != "NODE_NAME" || !self.node.is_empty();
        let ours = fields.into_iter().filter(|(key, _)| told(key));
        let ours = ours.map(|(key, value)| (key.to_owned(), value));
        Node {
            id: format!(
                "ztunnel~{}~{}.{}~{}.svc.cluster.local",
                self.instance_ip, self.pod_name, self.pod_namespace, self.pod_namespace
            ),
            metadata: Some(Struct {
                fields: self
                    .metadata
                    .iter()
                    .map(|(key, value)| (key.clone(), from_json(value)))
                    .chain(ours)
                    .collect(),
            }),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }
    }
}

fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // Protobuf has but one kind of number.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(from_json).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_metadata_is_text_and_what_the_operator_adds_cannot_replace_it() {
        let metadata = [
            ("NODE_NAME".to_owned(), "other".into()),
            ("LABELS".to_owned(), serde_json::json!({"app": ["a", 1, true, null]})),
        ];
        let node = NodeInfo {
            node: "n1".to_owned(),
            cluster: "c1".to_owned(),
            pod_name: "z".to_owned(),
            pod_namespace: "system".to_owned(),
            instance_ip: "10.0.0.1".to_owned(),
            metadata: metadata.into(),
        };
        let fields = node.message().metadata.unwrap().fields;
        let text = |key: &str| match fields[key].kind.clone() {
            Some(Kind::StringValue(text)) => text,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(text("NODE_NAME"), "n1");
        assert_eq!(text("CLUSTER_ID"), "c1");
        assert_eq!(text("INSTANCE_IPS"), "10.0.0.1");
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else {
            panic!("{fields:?}");
        };
        let Some(Kind::ListValue(list)) = &labels.fields["app"].kind else {
            panic!("{labels:?}");
        };
        assert_eq!(list.values.len(), 4);
        assert_eq!(list.values[1].kind, Some(Kind::NumberValue(1.0)));
    }
}
