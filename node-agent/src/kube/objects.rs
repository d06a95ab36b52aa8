//! Pods and namespaces with only the fields that decisions need: a fortieth of the memory
//! of the full types, and less to decode.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::probes::{self, SlimContainer};
use crate::enrollment::Key;
use crate::facts::{Annotations, NamespaceFacts, Network, Phase, PodFacts, PodName, PodUid};

/// The label that puts pods and namespaces into the mesh.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Set by whoever injected a sidecar.
const SIDECAR: &str = "sidecar.istio.io/status";
/// Peers use the tunnel to a pod that has this.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";
/// What [`REDIRECTION`] says then.
pub(super) const ENABLED: &str = "enabled";
/// What people are told.
pub(super) const OBSERVED: &str = "sluice.dev/observed";

/// A pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SlimPod {
    metadata: ObjectMeta,
    spec: SlimPodSpec,
    status: SlimPodStatus,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimPodSpec {
    host_network: Option<bool>,
    service_account_name: Option<String>,
    containers: Option<Vec<SlimContainer>>,
    init_containers: Option<Vec<SlimContainer>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimPodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<SlimPodIp>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SlimPodIp {
    ip: Option<String>,
}

/// A namespace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SlimNamespace {
    metadata: ObjectMeta,
}

macro_rules! core_v1 {
    ($slim:ty, $full:ty, $kind:literal, $plural:literal) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = <$full as k8s_openapi::Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> Cow<'_, str> {
                "".into()
            }
            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural((): &()) -> Cow<'_, str> {
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

pub(super) use core_v1;

core_v1!(SlimPod, k8s_openapi::api::core::v1::Pod, "Pod", "pods");
core_v1!(SlimNamespace, k8s_openapi::api::core::v1::Namespace, "Namespace", "namespaces");

impl SlimPod {
    /// What this object says; `None` for one without name or UID, which no API server
    /// stores.
    pub(super) fn facts(self) -> Option<PodFacts> {
        let Self { metadata, spec, status } = self;
        let annotations = metadata.annotations.unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        let ips = status.ips();
        let [containers, init_containers] =
            [&spec.containers, &spec.init_containers].map(|list| list.as_deref().unwrap_or(&[]));
        Some(PodFacts {
            uid: PodUid(metadata.uid?),
            name: PodName { namespace: metadata.namespace?, name: metadata.name? },
            // The API server fills this in; an old mirror pod may lack it.
            service_account: spec.service_account_name.unwrap_or_else(|| "default".into()),
            dataplane_mode: labels.get(DATAPLANE_MODE).cloned(),
            labels,
            sidecar: annotations.contains_key(SIDECAR),
            options: options(&annotations),
            network: if spec.host_network == Some(true) { Network::Host } else { Network::Own },
            phase: match status.phase.as_deref() {
                Some("Succeeded" | "Failed") => Phase::Ended,
                _ => Phase::Alive,
            },
            terminating: metadata.deletion_timestamp.is_some(),
            probe_ports: probes::ports(containers, init_containers, &ips),
            ips,
            annotations: Annotations {
                redirection: annotations.get(REDIRECTION).is_some_and(|value| value == ENABLED),
                observed: annotations.get(OBSERVED).cloned(),
            },
        })
    }
}

impl SlimPodStatus {
    /// An address that is none is left out: it affects only itself.
    fn ips(&self) -> Vec<IpAddr> {
        let all = self.pod_ips.iter().flatten().filter_map(|entry| entry.ip.as_ref());
        let mut ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            ips.extend(self.pod_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        ips
    }
}

impl SlimNamespace {
    /// What this object says; `None` for one without a name.
    pub(super) fn facts(self) -> Option<NamespaceFacts> {
        let labels = self.metadata.labels.unwrap_or_default();
        let dataplane_mode = labels.get(DATAPLANE_MODE).cloned();
        Some(NamespaceFacts { name: self.metadata.name?, dataplane_mode, labels })
    }
}

/// What the pod's owner wants for it.
fn options(annotations: &BTreeMap<String, String>) -> BTreeMap<Key, String> {
    let said = |key: Key| Some((key, annotations.get(key.annotation())?.clone()));
    Key::ALL.into_iter().filter_map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Option<PodFacts> {
        serde_json::from_value::<SlimPod>(json).unwrap().facts()
    }

    #[test]
    fn a_pod_says_what_decisions_need() {
        let facts = pod(serde_json::json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u1",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"istio.io/dataplane-mode": "ambient", "app": "web"},
                "annotations": {
                    "ambient.istio.io/redirection": "enabled",
                    "sluice.dev/observed": "captured",
                    "sidecar.istio.io/status": "{}",
                    "ambient.istio.io/dns-capture": "true",
                },
            },
            "spec": {"serviceAccountName": "clerk", "hostNetwork": true,
                     "containers": [{"livenessProbe": {"tcpSocket": {"port": 8080}}}]},
            "status": {"phase": "Succeeded", "podIP": "10.0.0.1",
                       "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "junk"}]},
        }))
        .unwrap();
        assert_eq!(facts.name.to_string(), "shop/web");
        assert_eq!(facts.service_account, "clerk");
        assert_eq!(facts.dataplane_mode.as_deref(), Some("ambient"));
        assert!(facts.sidecar && facts.terminating);
        assert_eq!(facts.options, [(Key::DnsCapture, "true".to_owned())].into());
        assert_eq!((facts.network, facts.phase), (Network::Host, Phase::Ended));
        let ips: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(facts.ips, ips);
        assert_eq!(facts.probe_ports, [8080].into());
        assert_eq!(facts.annotations, crate::reconcile::captured_annotations());
    }

    #[test]
    fn a_bare_pod_is_alive_and_unlabelled() {
        let metadata = serde_json::json!({"name": "a", "namespace": "b", "uid": "c"});
        let facts = pod(serde_json::json!({ "metadata": metadata })).unwrap();
        assert_eq!((facts.network, facts.phase), (Network::Own, Phase::Alive));
        assert_eq!(facts.service_account, "default");
        assert!(facts.ips.is_empty() && facts.dataplane_mode.is_none());
        assert_eq!(facts.annotations, Annotations::default());
    }

    #[test]
    fn an_object_without_a_uid_says_nothing() {
        assert!(pod(serde_json::json!({"metadata": {"name": "a"}})).is_none());
        assert!(pod(serde_json::json!({})).is_none());
    }
}
