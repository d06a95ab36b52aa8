//! The room's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What is counted about talking to the API.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    watches: Family<KindLabel, Gauge>,
    pub(super) events_written: Counter,
    pub(super) events_dropped: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "1 while the Kubernetes API shows changes of this kind, 0 while what is \
                    known of it may be out of date";
        registry.register("sluice_agent_kube_watch_up", help, self.watches.clone());
        let help = "Events written, repetitions counted in an earlier one included";
        registry.register("sluice_agent_events_written", help, self.events_written.clone());
        let help = "Events given up: too many, too late, or refused by the API";
        registry.register("sluice_agent_events_dropped", help, self.events_dropped.clone());
    }

    pub(super) fn watch(&self, kind: &'static str, up: i64) {
        self.watches.get_or_create(&KindLabel { kind }).set(up);
    }
}
