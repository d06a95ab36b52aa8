//! What is counted about revocation.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::Reporter;

/// The first two have Istio's names.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    rejections: Family<Labels, Counter>,
    untracked: Family<Labels, Counter>,
    reload_failures: Counter,
    stale: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reporter: Reporter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let by_reporter = [
            (
                "istio_crl_policy_rejections",
                "Connections refused or cut because the peer's certificate is revoked",
                &metrics.rejections,
            ),
            (
                "istio_crl_untracked_connections",
                "Connections that a later revocation cannot cut",
                &metrics.untracked,
            ),
        ];
        for (name, help, family) in by_reporter {
            registry.register(name, help, family.clone());
        }
        let failures = "Looks at the file of revocation lists that found it missing or unusable";
        registry.register("sluice_crl_reload_failures", failures, metrics.reload_failures.clone());
        let stale = "Revocation lists in force that are past their next update";
        registry.register("sluice_crl_stale_lists", stale, metrics.stale.clone());
        metrics
    }

    pub(super) fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create(&Labels { reporter }).inc();
    }

    pub(super) fn untracked(&self, reporter: Reporter) {
        self.untracked.get_or_create(&Labels { reporter }).inc();
    }

    pub(super) fn unusable(&self) {
        self.reload_failures.inc();
    }

    /// Returns how many there were before.
    pub(super) fn stale(&self, lists: usize) -> usize {
        let before = self.stale.set(i64::try_from(lists).unwrap_or(i64::MAX));
        usize::try_from(before).unwrap_or_default()
    }
}
