//! Everything ztunnel knows, as JSON that `istioctl ztunnel-config` understands: its keys
//! and shapes are those of Istio's ztunnel. Written straight from the view: there may be a
//! hundred thousand workloads.

mod pods;
mod policy_json;
mod service_json;
mod workload_json;

use std::time::Duration;

use mesh::View;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::identity::{Certificates, Summary};
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;
use crate::workloads;
use pods::{PodStates, pod_states};
use policy_json::PolicyJson;
use service_json::ServiceJson;
use workload_json::WorkloadJson;

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
    /// Their connections.
    pub telemetry: Telemetry,
    /// The settings in effect, without secrets.
    pub config: Value,
}

impl Dump {
    pub(super) async fn json(&self) -> serde_json::Result<Vec<u8>> {
        let view = self.view.current();
        let pods = timeout(PATIENCE, self.workloads.pods()).await.ok().flatten();
        let open = self.telemetry.open_connections();
        let view = view.as_deref();
        let mut document = serde_json::to_vec_pretty(&Document {
            workloads: view.map(workloads).unwrap_or_default(),
            services: view.map(services).unwrap_or_default(),
            policies: view.map(policies).unwrap_or_default(),
            staged_services: Map::new(),
            certificates: self.certificates.summary(),
            config: &self.config,
            version: VERSION,
            static_config: StaticConfig::default(),
            workload_state: pods.map(|pods| pod_states(pods, open)),
            view_complete: view.is_some(),
        })?;
        document.push(b'\n');
        Ok(document)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    workloads: Vec<WorkloadJson<'a>>,
    services: Vec<ServiceJson<'a>>,
    policies: Vec<PolicyJson<'a>>,
    /// Endpoints that came before their services; our view keeps them with the others.
    staged_services: Map<String, Value>,
    certificates: Vec<Summary>,
    config: &'a Value,
    version: Version,
    static_config: StaticConfig,
    workload_state: Option<PodStates>,
    /// Ours: whether the control plane has told everything once.
    view_complete: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    build_profile: &'static str,
}

const VERSION: Version = Version {
    version: env!("CARGO_PKG_VERSION"),
    build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
};

/// What a file says instead of a control plane: nothing.
#[derive(Default, Serialize)]
struct StaticConfig {
    workloads: [Value; 0],
    policies: [Value; 0],
    services: [Value; 0],
}

/// In the order of their names, so that two dumps can be compared.
fn workloads(view: &View) -> Vec<WorkloadJson<'_>> {
    let mut all: Vec<_> = view.workloads().collect();
    all.sort_unstable_by(|a, b| a.uid().cmp(b.uid()));
    all.into_iter().map(|workload| WorkloadJson::of(workload)).collect()
}

fn services(view: &View) -> Vec<ServiceJson<'_>> {
    let mut all: Vec<_> = view.services().collect();
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    all.into_iter().map(|service| ServiceJson::of(service, view)).collect()
}

fn policies(view: &View) -> Vec<PolicyJson<'_>> {
    let mut all: Vec<_> = view.policies().collect();
    all.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    all.into_iter().map(|policy| PolicyJson::of(policy)).collect()
}

#[cfg(test)]
mod tests;
