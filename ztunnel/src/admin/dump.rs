//! Everything ztunnel knows, as JSON that `istioctl ztunnel-config` understands.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Action, Enforcement, Policy, Protocol, Scope, Workload};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::identity::Certificates;
use crate::source::ViewHandle;
use crate::workloads::{self, PodState};

/// The manager answers between two events; one of them may be a pod that is slow to stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the parts of the dump come from.
#[derive(Debug)]
pub struct Dump {
    /// The mesh.
    pub view: ViewHandle,
    /// Our certificates; keys are never shown.
    pub certificates: Certificates,
    /// The pods of this node.
    pub workloads: workloads::Handle,
    /// The settings in effect, without secrets.
    pub config: Value,
}

/// A pod of this node in the dump.
#[derive(Debug, Serialize)]
pub struct WorkloadState {
    /// `Up` or `Pending`.
    pub state: &'static str,
    /// Why it is pending, when an attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Open connections.
    pub connections: BTreeMap<&'static str, usize>,
    /// Who it is.
    pub info: WorkloadInfo,
}

/// The names that the node agent gave.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadInfo {
    /// Pod name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
}

impl Dump {
    pub(super) async fn json(&self) -> Value {
        let view = self.view.current();
        let workloads: Vec<_> =
            view.iter().flat_map(|view| view.workloads()).map(|w| workload(w)).collect();
        let policies: Vec<_> =
            view.iter().flat_map(|view| view.policies()).map(|p| policy(p)).collect();
        json!({
            "workloads": workloads,
            "services": [],
            "policies": policies,
            "certificates": self.certificates.summary(),
            "config": self.config,
            "version": { "version": env!("CARGO_PKG_VERSION") },
            "viewComplete": view.is_some(),
            "workloadState": self.pods().await,
        })
    }

    async fn pods(&self) -> Value {
        let Ok(Some(pods)) = timeout(PATIENCE, self.workloads.pods()).await else {
            return Value::Null;
        };
        let states = pods.into_iter().map(|(uid, (info, state, connections))| {
            let (state, reason) = match state {
                PodState::Up => ("Up", None),
                PodState::Pending(reason) => ("Pending", reason),
            };
            let connections =
                [("inbound", connections.inbound), ("outbound", connections.outbound)].into();
            let info = WorkloadInfo {
                name: info.name,
                namespace: info.namespace,
                service_account: info.service_account,
            };
            (uid, json!(WorkloadState { state, reason, connections, info }))
        });
        Value::Object(states.collect::<Map<_, _>>())
    }
}

fn workload(workload: &Workload) -> Value {
    json!({
        "uid": *workload.uid,
        "name": *workload.name,
        "namespace": *workload.namespace,
        "serviceAccount": workload.identity.service_account(),
        "trustDomain": workload.identity.trust_domain(),
        "workloadIps": workload.addresses,
        "network": *workload.network,
        "protocol": match workload.protocol {
            Protocol::Hbone => "HBONE",
            Protocol::Plain => "TCP",
        },
        "networkMode": if workload.host_network { "HostNetwork" } else { "Standard" },
        "node": *workload.node,
        "clusterId": *workload.cluster,
        "workloadName": *workload.owner,
        "canonicalName": *workload.canonical_name,
        "canonicalRevision": *workload.canonical_revision,
        "authorizationPolicies":
            workload.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn policy(policy: &Policy) -> Value {
    json!({
        "name": policy.key().name(),
        "namespace": policy.key().namespace(),
        "scope": match policy.scope() {
            Scope::Global => "Global",
            Scope::Namespace => "Namespace",
            Scope::Selected => "WorkloadSelector",
        },
        "action": match policy.action() {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
        },
        "dryRun": policy.enforcement() != Enforcement::Enforced,
    })
}
