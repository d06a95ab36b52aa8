//! The room's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    family: &'static str,
}

/// What is counted about the host's probe rules.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    in_place: Gauge,
    repairs: Counter,
    exemptions: Gauge,
    self_test: Family<FamilyLabel, Gauge>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let in_place = "1 while the host's probe rules were last seen as they should be";
        registry.register("sluice_agent_host_probe_rules", in_place, self.in_place.clone());
        let repairs = "times that the host's probe rules were found different and repaired";
        registry.register("sluice_agent_host_probe_repairs", repairs, self.repairs.clone());
        let exemptions = "addresses with ports that the host's own sockets may probe";
        registry.register("sluice_agent_host_probe_ports", exemptions, self.exemptions.clone());
        let self_test = "1 when the agent's own probe arrived un-proxied, 0 when it did not";
        registry.register("sluice_agent_probe_self_test", self_test, self.self_test.clone());
    }

    pub(super) fn in_place(&self, exemptions: Option<usize>) {
        self.in_place.set(i64::from(exemptions.is_some()));
        if let Some(exemptions) = exemptions {
            self.exemptions.set(i64::try_from(exemptions).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn repaired(&self) {
        self.repairs.inc();
    }

    pub(super) fn tested(&self, family: &'static str, passed: Result<(), ()>) {
        self.self_test.get_or_create(&FamilyLabel { family }).set(i64::from(passed.is_ok()));
    }
}
