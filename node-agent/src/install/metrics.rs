//! The room's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted about the conflist.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) in_place: Gauge,
    pub(super) writes: Counter,
    pub(super) undone: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "1 while the runtime's network configuration has our plugin as it should";
        registry.register("sluice_agent_conflist_in_place", help, self.in_place.clone());
        let help = "Files of the runtime's network configuration written or removed";
        registry.register("sluice_agent_conflist_writes", help, self.writes.clone());
        let help = "Times that somebody else removed or changed what was written";
        registry.register("sluice_agent_conflist_undone", help, self.undone.clone());
    }
}
