//! Looks at a cluster, and at the node on which it runs, and says what will not work with
//! Sluice and which setting mends it. Changes nothing.
//!
//! ```text
//! API ── gather ──┐
//!                 ├─► Facts ─► detectors (PURE) ─► findings ─► lines or JSON, exit code
//! node ── look ───┘
//! ```

mod calico;
mod cilium;
mod cluster;
mod facts;
mod finding;
mod gather;
mod look;
mod node;
mod parse;
mod policy;

use std::path::PathBuf;

use crate::enrollment::Settings;
use crate::kube::{KubeApi, Metrics};
use crate::rules::ProbeSource;
use facts::{Facts, Known};

pub use finding::{Finding, Output, Severity, has_problems, render};
pub use look::NodePlaces;

/// What is looked at, and how it is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it is told.
    pub output: Output,
    /// Kubeconfig file; `None` is the service account of our own pod.
    pub kubeconfig: Option<PathBuf>,
    /// Who is in the mesh.
    pub enrollment: Settings,
    /// How the agent tells probes from other traffic.
    pub probe_source: ProbeSource,
    /// The node; `None`: this does not run on one.
    pub node: Option<NodePlaces>,
}

/// Looks and judges; the worst comes first.
pub async fn run(config: &Config) -> Vec<Finding> {
    let (cluster, node) = tokio::join!(cluster(config), look_at_node(config));
    let mesh = gather::mesh(&cluster, &config.enrollment);
    judge(&Facts { cluster, node, probe_source: config.probe_source, mesh })
}

/// All detectors.
fn judge(facts: &Facts) -> Vec<Finding> {
    let detectors = [cilium::detect, calico::detect, cluster::detect, node::detect];
    let mut findings: Vec<_> = detectors.iter().flat_map(|detect| detect(facts)).collect();
    findings.sort();
    findings.dedup();
    findings
}

async fn cluster(config: &Config) -> Known<facts::ClusterFacts> {
    let file = config.kubeconfig.as_deref();
    let api = KubeApi::new(file, String::new(), Metrics::default()).await;
    gather::cluster(&api.map_err(|error| error.to_string())?).await
}

async fn look_at_node(config: &Config) -> Known<facts::NodeFacts> {
    match &config.node {
        Some(places) => Ok(look::node(places).await),
        None => Err("NODE_NAME is not set: run this on a node, as by \
                     `kubectl exec daemonset/sluice-node-agent -- node-agent check`"
            .into()),
    }
}

#[cfg(test)]
mod tests;
