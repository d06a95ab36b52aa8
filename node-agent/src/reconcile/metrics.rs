//! The room's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::plan::Action;
use super::pod::State;
use super::table::Table;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// What is counted about pods.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    actions: Family<TypeLabel, Counter>,
    failures: Family<TypeLabel, Counter>,
    repairs: Counter,
    older_ended: Counter,
    pods: Family<StateLabel, Gauge>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let actions = "steps taken for pods, by type";
        registry.register("nodeagent_reconcile_events", actions, self.actions.clone());
        let failures = "steps for pods that failed, by type";
        registry.register("sluice_agent_reconcile_failures", failures, self.failures.clone());
        let repairs = "captured pods found different from what they should be, and repaired";
        registry.register("sluice_agent_drift_repairs", repairs, self.repairs.clone());
        let older = "connections older than their pod's capture that were ended, as configured";
        let name = "sluice_agent_older_connections_ended";
        registry.register(name, older, self.older_ended.clone());
        registry.register("sluice_agent_pods", "pods of this node, by state", self.pods.clone());
    }

    pub(super) fn acted(&self, action: &Action) {
        self.actions.get_or_create(&TypeLabel { r#type: action.name() }).inc();
    }

    pub(super) fn failed(&self, action: &Action) {
        self.failures.get_or_create(&TypeLabel { r#type: action.name() }).inc();
    }

    pub(super) fn ended_older(&self, connections: usize) {
        self.older_ended.inc_by(connections as u64);
    }

    pub(super) fn repaired(&self) {
        self.repairs.inc();
    }

    pub(super) fn count(&self, table: &Table) {
        for state in State::ALL {
            let pods = table.pods().filter(|(_, pod)| pod.state == state).count();
            let gauge = self.pods.get_or_create(&StateLabel { state: state.name() });
            gauge.set(i64::try_from(pods).unwrap_or(i64::MAX));
        }
    }
}
