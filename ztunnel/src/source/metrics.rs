//! What is counted about the control plane.

use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::state::Count;

/// Counters of the xDS client.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    terminations: Family<Termination, Counter>,
    messages: Family<Url, Counter>,
    message_bytes: Family<Url, Counter>,
    rejected: Family<Url, Counter>,
    held: Family<Url, Gauge>,
    held_rejected: Family<Url, Gauge>,
    withheld: Family<Url, Gauge>,
    pub(super) connected: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Termination {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: &'static str,
}

impl Url {
    /// What we never asked for shares a label: else a control plane that is out of order
    /// could make up any number of them.
    fn of(url: &str) -> Self {
        let known = [ADDRESS_TYPE, AUTHORIZATION_TYPE].into_iter().find(|known| *known == url);
        Self { url: known.unwrap_or("other") }
    }
}

impl Metrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "istio_xds_connection_terminations",
            "Streams to the control plane that ended",
            metrics.terminations.clone(),
        );
        let counters = [
            ("istio_xds_message", "Messages from the control plane", &metrics.messages),
            (
                "istio_xds_message_bytes",
                "Bytes of messages from the control plane",
                &metrics.message_bytes,
            ),
            (
                "sluice_xds_resources_rejected",
                "Resources that the control plane sent and we could not use",
                &metrics.rejected,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("sluice_xds_resources_held", "Resources that we hold, good or bad", &metrics.held),
            (
                "sluice_xds_resources_unusable",
                "Resources whose latest version we could not use: they are refused or in use as before",
                &metrics.held_rejected,
            ),
            (
                "sluice_xds_removals_held_back",
                "Resources in use though the control plane removed them: more than half at once",
                &metrics.withheld,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "sluice_xds_connected",
            "Whether a stream to the control plane is open",
            metrics.connected.clone(),
        );
        metrics
    }

    pub(super) fn ended(&self, reason: &'static str) {
        self.terminations.get_or_create(&Termination { reason }).inc();
    }

    pub(super) fn received(&self, url: &str, bytes: usize) {
        let url = Url::of(url);
        self.messages.get_or_create(&url).inc();
        self.message_bytes.get_or_create(&url).inc_by(bytes as u64);
    }

    pub(super) fn holds(&self, url: &str, count: Count) {
        let url = Url::of(url);
        let set = |family: &Family<Url, Gauge>, number: usize| {
            family.get_or_create(&url).set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        set(&self.held, count.held);
        set(&self.held_rejected, count.rejected);
        set(&self.withheld, count.withheld);
    }

    pub(super) fn rejected(&self, url: &str, resources: usize) {
        if resources > 0 {
            let url = Url::of(url);
            self.rejected.get_or_create(&url).inc_by(resources as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_were_never_asked_for_share_a_label() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.received(ADDRESS_TYPE, 1);
        for number in 0..100 {
            metrics.received(&format!("type.googleapis.com/made.up.{number}"), 1);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series: Vec<_> =
            text.lines().filter(|line| line.starts_with("istio_xds_message_total{")).collect();
        assert_eq!(series.len(), 2, "{series:?}");
    }
}
