//! What ztunnel tells about connections: one access-log line and Istio's TCP metrics for
//! each, and a name for everything it refused.
//!
//! ```text
//! open(facts) ──► ConnectionGuard ── add_sent, add_received ──► its own two totals
//!                      │                                            ▲ settled at a scrape
//!                      └─ close(outcome) ──► one line, the counters of its label set
//! ```
//!
//! Label sets are resolved once per connection, and there is a bounded number of them.

mod access;
mod connection;
mod dry_run;
mod facts;
mod failure;
mod labels;
mod levels;
mod line;
pub mod log;
mod metrics;
mod open;
mod process;
mod series;
mod timing;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Connection, Decision, View, Workload};
use prometheus_client::registry::Registry;

pub use connection::ConnectionGuard;
pub use dry_run::{DryRun, PolicyLog, dry_run};
pub use facts::{ConnectionOpen, Direction, Endpoint, Hop, Reporter, Security};
pub use failure::{Failure, Refusal, ResponseFlags};
use metrics::Metrics;
pub use open::OpenConnection;
pub use process::register_process;
pub use series::SeriesLimits;
pub use timing::Step;

use crate::dns;

/// What is told, and how much of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bounds of the metrics.
    pub series: SeriesLimits,
    /// The level of what policies decide.
    pub policy_log: PolicyLog,
}

/// The proxy's way to report; cloning shares the counters.
#[derive(Clone, Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    dns: dns::Metrics,
    policy_log: PolicyLog,
}

impl Telemetry {
    /// Registers the metrics of connections, with the default settings.
    pub fn new(registry: &mut Registry) -> Self {
        Self::with_settings(registry, Settings::default())
    }

    /// Registers the metrics of connections.
    pub fn with_settings(registry: &mut Registry, settings: Settings) -> Self {
        Self {
            metrics: Metrics::register(registry, settings.series),
            dns: dns::Metrics::register(registry),
            policy_log: settings.policy_log,
        }
    }

    /// The counters of lookups.
    #[must_use]
    pub fn dns(&self) -> &dns::Metrics {
        &self.dns
    }

    /// A connection begins.
    #[must_use]
    pub fn open(&self, connection: ConnectionOpen) -> ConnectionGuard {
        access::opened(&connection);
        ConnectionGuard::new(&self.metrics, connection)
    }

    /// A connection was refused.
    pub fn refused(&self, refusal: &Refusal) {
        access::refused(refusal);
        self.metrics.refused(refusal);
    }

    /// A listener could not accept; it tries again.
    pub fn accept_failed(&self) {
        self.metrics.accepts_failed.inc();
    }

    /// A connection goes on in clear text, because a complete view does not know its
    /// destination.
    pub fn passthrough_unknown_destination(&self) {
        self.metrics.passthrough_unknown_destination.inc();
    }

    /// A step on the way to a connection was done in this time.
    pub fn took(&self, step: Step, time: Duration) {
        self.metrics.timing.took(step, time);
    }

    /// A connection toward a pod was judged for the first time. Logs the decision and
    /// what the dry-run policies of `view` would have made of it; costs next to nothing
    /// where nobody reads it.
    pub fn judged(
        &self,
        view: &View,
        destination: &Workload,
        connection: &Connection,
        decision: &Decision,
    ) {
        self.policy_log.judged(view, destination, connection, decision);
    }

    /// The connections that are open now, by namespace and name of their pod.
    #[must_use]
    pub fn open_connections(&self) -> HashMap<(Arc<str>, Arc<str>), Vec<OpenConnection>> {
        self.metrics.open.list()
    }

    /// Those of one pod, by its namespace and name; the first `most` of them.
    #[must_use]
    pub fn open_connections_of(
        &self,
        namespace: &str,
        name: &str,
        most: usize,
    ) -> Vec<OpenConnection> {
        self.metrics.open.list_of(namespace, name, most)
    }
}

#[cfg(test)]
mod series_tests;
#[cfg(test)]
mod tests;
