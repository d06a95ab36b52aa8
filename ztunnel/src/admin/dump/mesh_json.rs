//! Workloads and services as Istio's dump has them.

use std::net::IpAddr;

use mesh::{Protocol, Workload};
use serde::Serialize;

/// A workload. What is not known is left out where Istio leaves it out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadJson<'a> {
    uid: &'a str,
    workload_ips: &'a [IpAddr],
    protocol: &'static str,
    network_mode: &'static str,
    name: &'a str,
    namespace: &'a str,
    trust_domain: &'a str,
    service_account: &'a str,
    workload_name: &'a str,
    canonical_name: &'a str,
    canonical_revision: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    node: &'a str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_policies: Vec<String>,
}

impl<'a> WorkloadJson<'a> {
    pub(super) fn of(workload: &'a Workload) -> Self {
        Self {
            uid: &workload.uid,
            workload_ips: &workload.addresses,
            protocol: match workload.protocol {
                Protocol::Hbone => "HBONE",
                Protocol::Plain => "TCP",
            },
            network_mode: if workload.host_network { "HostNetwork" } else { "Standard" },
            name: &workload.name,
            namespace: &workload.namespace,
            trust_domain: workload.identity.trust_domain(),
            service_account: workload.identity.service_account(),
            workload_name: &workload.owner,
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            network: &workload.network,
            node: &workload.node,
            cluster_id: &workload.cluster,
            authorization_policies: workload.policies.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceJson<'a> {
    name: &'a str,
}
