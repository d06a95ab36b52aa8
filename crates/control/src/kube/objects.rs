//! Kubernetes' objects with the few fields that are needed: what is not read is not kept,
//! and a field of another type than expected in the rest of an object hurts nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use mesh::PolicyKey;
use serde::Deserialize;

use crate::facts::{Health, Life, Owner, PeerFacts, PodFacts, PodNetwork, PolicyFacts, Reach};

mod node;
mod service;
mod slice;

pub(super) use node::Node;
pub(super) use service::Service;
pub(super) use slice::EndpointSlice;

/// What the Kubernetes client must know of a type.
macro_rules! resource {
    ($type:ident, $scope:ident, $group:literal $version:literal $kind:literal $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = kube::core::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use resource;

/// Set by the node agent once it has seen a pod captured.
const REDIRECTION: &str = "ambient.istio.io/redirection";
const DRY_RUN: &str = "istio.io/dry-run";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) metadata: ObjectMeta,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let key = key(&pod.metadata);
        let Pod { metadata, spec, status } = pod;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let annotations = metadata.annotations.unwrap_or_default();
        let redirected = annotations.get(REDIRECTION).is_some_and(|value| value == "enabled");
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ports = named_ports(&spec);
        let account = spec.service_account_name.filter(|name| !name.is_empty());
        Self {
            addresses: addresses(&key, &status),
            health: match metadata.deletion_timestamp {
                None => health(&status),
                Some(_) => Health::NotReady,
            },
            ports,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            service_account: account.unwrap_or_else(|| "default".to_owned()),
            network: match spec.host_network {
                Some(true) => PodNetwork::Host,
                _ => PodNetwork::Own,
            },
            life: if ended { Life::Ended } else { Life::Active },
            reach: if redirected { Reach::Tunnel } else { Reach::Direct },
            labels: metadata.labels.unwrap_or_default(),
            owner: controller(metadata.owner_references.unwrap_or_default()),
        }
    }
}

fn addresses(pod: &str, status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().filter_map(|entry| entry.ip.as_deref());
    let mut texts: Vec<_> = all.filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref().filter(|text| !text.is_empty()));
    }
    parse_addresses("pod", pod, texts)
}

/// Those texts that are addresses; of the others it is said whose they are.
fn parse_addresses<'a>(
    kind: &str,
    key: &str,
    texts: impl IntoIterator<Item = &'a str>,
) -> Vec<IpAddr> {
    let parse = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) => {
            tracing::warn!(kind, key, text, "not an address, left out: correct the object");
            None
        }
    };
    texts.into_iter().filter_map(parse).collect()
}

/// `namespace/name`.
fn key(metadata: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

/// TCP is what a port or a slice speaks when it does not say.
fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// A port number, and not 0.
fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// Of two ports with one name the first counts, and containers come before those that
/// only start first.
fn named_ports(spec: &PodSpec) -> BTreeMap<String, u16> {
    let containers = spec.containers.iter().chain(&spec.init_containers).flatten();
    let mut named = BTreeMap::new();
    for declared in containers.filter_map(|container| container.ports.as_ref()).flatten() {
        if let (Some(name), Some(number), true) = (
            declared.name.clone(),
            port(declared.container_port),
            is_tcp(declared.protocol.as_deref()),
        ) {
            named.entry(name).or_insert(number);
        }
    }
    named
}

fn health(status: &PodStatus) -> Health {
    let ready = |it: &Condition| it.r#type == "Ready" && it.status == "True";
    if status.conditions.iter().flatten().any(ready) { Health::Ready } else { Health::NotReady }
}

fn controller(owners: Vec<OwnerReference>) -> Option<Owner> {
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner { kind: owner.kind, name: owner.name })
}

/// `spec` is read by the translation, so that one malformed policy cannot make the list
/// of all of them unreadable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthorizationPolicy {
    pub(super) metadata: ObjectMeta,
    spec: serde_json::Value,
}

impl AuthorizationPolicy {
    /// `None` for an object without a name, which no API has.
    pub(super) fn facts(self) -> Option<PolicyFacts> {
        let namespace = self.metadata.namespace.as_deref()?;
        let key = PolicyKey::new(namespace, self.metadata.name.as_deref()?)?;
        let annotations: BTreeMap<_, _> = self.metadata.annotations.unwrap_or_default();
        Some(PolicyFacts { key, dry_run: annotations.get(DRY_RUN).cloned(), spec: self.spec })
    }
}

/// As [`AuthorizationPolicy`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PeerAuthentication {
    pub(super) metadata: ObjectMeta,
    spec: serde_json::Value,
}

impl PeerAuthentication {
    /// `None` for an object without a name, which no API has.
    pub(super) fn facts(self) -> Option<PeerFacts> {
        let namespace = self.metadata.namespace.as_deref()?;
        let key = PolicyKey::new(namespace, self.metadata.name.as_deref()?)?;
        // Whole seconds and UTC, so that texts compare as times do.
        let created = self.metadata.creation_timestamp.map(|time| time.0.to_string());
        Some(PeerFacts { key, created: created.unwrap_or_default(), spec: self.spec })
    }
}

resource!(
    PeerAuthentication,
    NamespaceResourceScope,
    "security.istio.io" "v1" "PeerAuthentication" "peerauthentications"
);
resource!(Pod, NamespaceResourceScope, "" "v1" "Pod" "pods");
resource!(
    AuthorizationPolicy,
    NamespaceResourceScope,
    "security.istio.io" "v1" "AuthorizationPolicy" "authorizationpolicies"
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn facts(pod: Value) -> PodFacts {
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }

    #[test]
    fn a_pod_is_read_from_what_the_api_sends() {
        let facts = facts(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "cart-1", "namespace": "shop", "uid": "u1",
                "labels": { "app": "cart" },
                "annotations": { "ambient.istio.io/redirection": "enabled" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Other", "name": "o", "uid": "x" },
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-6c7f",
                      "uid": "y", "controller": true },
                ],
            },
            "spec": { "nodeName": "n1", "serviceAccountName": "cart", "containers": [] },
            "status": {
                "phase": "Running", "podIP": "10.0.0.2",
                "podIPs": [{ "ip": "10.0.0.2" }, { "ip": "fd00::2" }],
                "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null }],
            },
        }));
        let expected = PodFacts {
            uid: "u1".into(),
            addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            reach: Reach::Tunnel,
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            owner: Some(Owner { kind: "ReplicaSet".into(), name: "cart-6c7f".into() }),
            ..crate::testing::pod("shop", "cart-1")
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_new_pod_is_mostly_empty() {
        let facts = facts(json!({ "metadata": { "name": "a", "namespace": "b" }, "status": {} }));
        assert_eq!(facts.service_account, "default");
        assert_eq!(facts.node, "");
        assert!(facts.addresses.is_empty());
        assert_eq!((facts.life, facts.health), (Life::Active, Health::NotReady));
    }

    #[test]
    fn life_network_and_addresses() {
        for phase in ["Succeeded", "Failed"] {
            let ended = facts(json!({ "status": { "phase": phase } }));
            assert_eq!(ended.life, Life::Ended);
        }
        let terminating = facts(json!({
            "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "hostNetwork": true },
            "status": { "phase": "Running", "podIP": "10.0.0.2",
                        "conditions": [{ "type": "Ready", "status": "True" }] },
        }));
        assert_eq!(terminating.health, Health::NotReady, "no new connections by a service");
        assert_eq!(terminating.life, Life::Active);
        assert_eq!(terminating.network, PodNetwork::Host);
        assert_eq!(terminating.addresses, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
        let odd = facts(json!({ "status": { "podIPs": [{ "ip": "nonsense" }, { "ip": "::1" }] } }));
        assert_eq!(odd.addresses.len(), 1, "one bad address does not take the good one along");
    }

    #[test]
    fn named_tcp_ports_of_all_containers_are_known() {
        let facts = facts(json!({ "spec": {
            "containers": [
                { "ports": [{ "containerPort": 8080, "name": "web" }, { "containerPort": 1 }] },
                {},
                { "ports": [{ "containerPort": 53, "name": "dns", "protocol": "UDP" },
                            { "containerPort": 9, "name": "web" }] },
            ],
            "initContainers": [{ "ports": [{ "containerPort": 7, "name": "sidecar" }] }],
        } }));
        let named: Vec<_> = facts.ports.iter().map(|(name, port)| (&**name, *port)).collect();
        assert_eq!(named, [("sidecar", 7), ("web", 8080)]);
    }

    #[test]
    fn a_policy_of_any_form_is_read() {
        for spec in [json!({ "rules": "x" }), json!(3), Value::Null] {
            let policy: AuthorizationPolicy = serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "shop",
                              "annotations": { "istio.io/dry-run": "true" } },
                "spec": spec,
            }))
            .unwrap();
            let facts = policy.facts().unwrap();
            assert_eq!(facts.key.to_string(), "shop/p");
            assert_eq!((facts.dry_run.as_deref(), facts.spec), (Some("true"), spec));
        }
    }
}
