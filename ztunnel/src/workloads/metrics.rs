//! Istio's counters of pods.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How many pods are served, wait, came and went.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) active: Gauge,
    pub(super) pending: Gauge,
    pub(super) unattended: Gauge,
    pub(super) started: Counter,
    pub(super) stopped: Counter,
}

impl Metrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let gauges = [
            ("active_proxy_count", "Pods that are served", &metrics.active),
            ("pending_proxy_count", "Pods that could not be started yet", &metrics.pending),
            (
                "unattended_proxy_count",
                "Pods that are served while no node agent says that they still exist: the \
                 namespaces of those that do not are kept all the same",
                &metrics.unattended,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(format!("workload_manager_{name}"), help, gauge.clone());
        }
        let counters = [
            ("proxies_started", "Pods whose proxy started", &metrics.started),
            ("proxies_stopped", "Pods whose proxy was stopped", &metrics.stopped),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("workload_manager_{name}"), help, counter.clone());
        }
        metrics
    }
}
