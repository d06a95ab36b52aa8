//! What is counted about lookups. Names and labels are Istio's.

use std::time::Duration;

use mesh::Workload;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::answer::Transport;

/// Counters of all pods' lookups. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    upstream_requests: Family<Labels, Counter>,
    upstream_failures: Family<Labels, Counter>,
    upstream_duration: Family<Labels, Histogram, fn() -> Histogram>,
    on_demand: Counter,
    unsent: Counter,
}

/// Who asked for what, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    request_query_type: &'static str,
    request_protocol: &'static str,
    source_canonical_service: String,
    source_canonical_revision: String,
}

impl Labels {
    /// `kind` is the question's type, where there is one that can be read.
    pub(super) fn new(kind: Option<u16>, transport: Transport, source: Option<&Workload>) -> Self {
        let known = |text: Option<&str>| match text {
            None | Some("") => "unknown".to_owned(),
            Some(text) => text.to_owned(),
        };
        Self {
            request_query_type: kind.map_or("unknown", type_name),
            request_protocol: match transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            source_canonical_service: known(source.map(|it| &*it.canonical_name)),
            source_canonical_revision: known(source.map(|it| &*it.canonical_revision)),
        }
    }
}

/// Clients must not be able to make up series, so there is one name for all rare types.
fn type_name(kind: u16) -> &'static str {
    match kind {
        1 => "a",
        2 => "ns",
        5 => "cname",
        6 => "soa",
        12 => "ptr",
        15 => "mx",
        16 => "txt",
        28 => "aaaa",
        33 => "srv",
        64 => "svcb",
        65 => "https",
        255 => "any",
        _ => "other",
    }
}

impl Metrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        // From an answer of the same node to the deadline.
        let buckets: fn() -> Histogram = || Histogram::new([0.001, 0.005, 0.01, 0.1, 1.0, 5.0]);
        let metrics = Self {
            requests: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_duration: Family::new_with_constructor(buckets),
            on_demand: Counter::default(),
            unsent: Counter::default(),
        };
        let families = [
            ("istio_dns_requests", "Lookups of pods", &metrics.requests),
            (
                "istio_dns_upstream_requests",
                "Lookups sent on to a resolver",
                &metrics.upstream_requests,
            ),
            (
                "istio_dns_upstream_failures",
                "Lookups that no resolver answered",
                &metrics.upstream_failures,
            ),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        registry.register_with_unit(
            "istio_dns_upstream_request_duration",
            "How long resolvers took",
            Unit::Seconds,
            metrics.upstream_duration.clone(),
        );
        registry.register(
            "istio_on_demand_dns",
            "Connections whose destination had to be looked up by name",
            metrics.on_demand.clone(),
        );
        registry.register(
            "sluice_dns_answers_unsent",
            "Answers to lookups of pods over UDP that the system did not send",
            metrics.unsent.clone(),
        );
        metrics
    }

    pub(super) fn requested(&self, labels: &Labels) {
        self.requests.get_or_create(labels).inc();
    }

    pub(super) fn forwarded(&self, labels: &Labels) {
        self.upstream_requests.get_or_create(labels).inc();
    }

    pub(super) fn returned(&self, labels: &Labels, after: Duration) {
        self.upstream_duration.get_or_create(labels).observe(after.as_secs_f64());
    }

    pub(super) fn failed(&self, labels: &Labels) {
        self.upstream_failures.get_or_create(labels).inc();
    }

    pub(super) fn unsent(&self) {
        self.unsent.inc();
    }

    pub(super) fn looked_up(&self) {
        self.on_demand.inc();
    }
}
