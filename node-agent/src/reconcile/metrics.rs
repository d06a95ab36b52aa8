//! The room's metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::plan::Action;
use super::pod::State;
use super::table::Table;
use crate::rules::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Repairs in place: a few milliseconds alone, seconds on a node that does nothing else.
#[derive(Clone, Debug)]
struct RepairSeconds(Histogram);

impl Default for RepairSeconds {
    fn default() -> Self {
        Self(Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]))
    }
}

/// What is counted about pods.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    actions: Family<TypeLabel, Counter>,
    failures: Family<TypeLabel, Counter>,
    older_ended: Counter,
    repairs: Family<KindLabel, Counter>,
    repair_seconds: RepairSeconds,
    pods: Family<StateLabel, Gauge>,
    ending: Gauge,
    impaired: Family<KindLabel, Gauge>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let actions = "steps taken for pods, by type";
        registry.register("nodeagent_reconcile_events", actions, self.actions.clone());
        let failures = "steps for pods that failed, by type";
        registry.register("sluice_agent_reconcile_failures", failures, self.failures.clone());
        let repairs =
            "captured pods found different from what they should be, and repaired, by what it was";
        registry.register("sluice_agent_drift_repairs", repairs, self.repairs.clone());
        let older = "connections older than their pod's capture that were ended, as configured";
        let name = "sluice_agent_older_connections_ended";
        registry.register(name, older, self.older_ended.clone());
        let took = "seconds from looking at a captured pod that differs to its being right again";
        registry.register("sluice_agent_repair_seconds", took, self.repair_seconds.0.clone());
        registry.register("sluice_agent_pods", "pods of this node, by state", self.pods.clone());
        let impaired = "captured pods of which somebody else keeps something from working, by what \
                        it is";
        registry.register("sluice_agent_pods_impaired", impaired, self.impaired.clone());
        let ending = "pods that have ended and of which ztunnel or the agent has yet to let go";
        registry.register("sluice_agent_pods_ending", ending, self.ending.clone());
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

    pub(super) fn repaired(&self, kinds: &BTreeSet<Kind>, took: Duration) {
        for kind in kinds {
            self.repairs.get_or_create(&KindLabel { kind: kind.name() }).inc();
        }
        self.repair_seconds.0.observe(took.as_secs_f64());
    }

    pub(super) fn count(&self, table: &Table) {
        for state in State::ALL {
            let pods = table.pods().filter(|(_, pod)| pod.state == state).count();
            let gauge = self.pods.get_or_create(&StateLabel { state: state.name() });
            gauge.set(i64::try_from(pods).unwrap_or(i64::MAX));
        }
        let overtaken = table.pods().filter(|(_, pod)| !pod.overtaken.is_empty()).count();
        let kind = KindLabel { kind: "foreign_policy_rule" };
        self.impaired.get_or_create(&kind).set(i64::try_from(overtaken).unwrap_or(i64::MAX));
        let ending = table.pods().filter(|(_, pod)| pod.ending).count();
        self.ending.set(i64::try_from(ending).unwrap_or(i64::MAX));
    }
}
