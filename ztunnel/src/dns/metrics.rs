//! What is counted about lookups. Names and labels are Istio's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh::Workload;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::answer::Transport;

/// Services, with their revisions, whose lookups are counted on their own. More than a node
/// has at one time; but a long life sees many, as each job may be one of its own. The
/// lookups of others count as those of `other`.
const SOURCES: usize = 500;

/// A source that looked nothing up for this long makes room for another one.
const IDLE: Duration = Duration::from_secs(3600);

/// How often a full list is searched for such.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Counters of all pods' lookups. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Labels, Counter>,
    upstream_requests: Family<Labels, Counter>,
    upstream_failures: Family<Labels, Counter>,
    upstream_duration: Family<Labels, Histogram, fn() -> Histogram>,
    on_demand: Counter,
    unsent: Counter,
    sources: Arc<Mutex<Sources>>,
}

/// Canonical service and revision.
type Source = (String, String);

/// Whose lookups are counted on their own.
#[derive(Debug, Default)]
struct Sources {
    used: HashMap<Source, Instant>,
    swept: Option<Instant>,
}

/// Who asked for what, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    request_query_type: &'static str,
    request_protocol: &'static str,
    source_canonical_service: String,
    source_canonical_revision: String,
}

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

/// Clients must not be able to make up series, so there is one name for all rare types.
const TYPES: [(u16, &str); 12] = [
    (1, "a"),
    (2, "ns"),
    (5, "cname"),
    (6, "soa"),
    (12, "ptr"),
    (15, "mx"),
    (16, "txt"),
    (28, "aaaa"),
    (33, "srv"),
    (64, "svcb"),
    (65, "https"),
    (255, "any"),
];
const RARE: &str = "other";
const UNREADABLE: &str = "unknown";

fn type_name(kind: Option<u16>) -> &'static str {
    let Some(kind) = kind else { return UNREADABLE };
    TYPES.iter().find(|(number, _)| *number == kind).map_or(RARE, |(_, name)| name)
}

impl Sources {
    /// Whether lookups of `source` are counted on their own, and who makes room for it.
    fn admit(&mut self, source: &Source, now: Instant) -> (bool, Vec<Source>) {
        if let Some(used) = self.used.get_mut(source) {
            *used = now;
            return (true, Vec::new());
        }
        let gone = if self.used.len() >= SOURCES { self.sweep(now) } else { Vec::new() };
        let admitted = self.used.len() < SOURCES;
        if admitted {
            self.used.insert(source.clone(), now);
        }
        (admitted, gone)
    }

    fn sweep(&mut self, now: Instant) -> Vec<Source> {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return Vec::new();
        }
        self.swept = Some(now);
        let idle = |used: &mut Instant| now.saturating_duration_since(*used) >= IDLE;
        self.used.extract_if(|_, used| idle(used)).map(|(source, _)| source).collect()
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
            sources: Arc::default(),
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

    /// `kind` is the question's type, where there is one that can be read.
    pub(super) fn labels(
        &self,
        kind: Option<u16>,
        transport: Transport,
        source: Option<&Workload>,
    ) -> Labels {
        let text = |field: fn(&Workload) -> &str| match source.map(field) {
            None | Some("") => "unknown".to_owned(),
            Some(text) => text.to_owned(),
        };
        let source = (text(|it| &it.canonical_name), text(|it| &it.canonical_revision));
        self.labels_at(kind, transport, source, Instant::now())
    }

    fn labels_at(
        &self,
        kind: Option<u16>,
        transport: Transport,
        source: Source,
        now: Instant,
    ) -> Labels {
        let (admitted, gone) =
            self.sources.lock().unwrap_or_else(PoisonError::into_inner).admit(&source, now);
        gone.iter().for_each(|source| self.forget(source));
        let other = || ("other".to_owned(), "other".to_owned());
        let (service, revision) = if admitted { source } else { other() };
        Labels {
            request_query_type: type_name(kind),
            request_protocol: match transport {
                Transport::Udp => PROTOCOLS[0],
                Transport::Tcp => PROTOCOLS[1],
            },
            source_canonical_service: service,
            source_canonical_revision: revision,
        }
    }

    fn forget(&self, (service, revision): &Source) {
        let types = TYPES.iter().map(|(_, name)| *name).chain([RARE, UNREADABLE]);
        for (request_query_type, request_protocol) in
            types.flat_map(|name| PROTOCOLS.map(|protocol| (name, protocol)))
        {
            let labels = Labels {
                request_query_type,
                request_protocol,
                source_canonical_service: service.clone(),
                source_canonical_revision: revision.clone(),
            };
            for family in [&self.requests, &self.upstream_requests, &self.upstream_failures] {
                family.remove(&labels);
            }
            self.upstream_duration.remove(&labels);
        }
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

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn series(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let of_requests = |line: &&str| line.starts_with("istio_dns_requests_total{");
        text.lines().filter(of_requests).map(str::to_owned).collect()
    }

    /// A node that runs jobs sees thousands of services in its life.
    #[test]
    fn sources_that_come_and_go_leave_nothing_behind() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let begin = Instant::now();
        let ask = |name: String, now| {
            let labels = metrics.labels_at(Some(1), Transport::Udp, (name, String::new()), now);
            metrics.requested(&labels);
            metrics.forwarded(&labels);
            metrics.returned(&labels, Duration::ZERO);
            metrics.failed(&labels);
        };
        for number in 0..10 * SOURCES {
            ask(format!("job-{number}"), begin);
        }
        let found = series(&registry);
        assert_eq!(found.len(), SOURCES + 1, "the bound, and what all others share");
        let shared = found.iter().find(|line| line.contains("\"other\"")).unwrap();
        assert!(shared.ends_with(&format!(" {}", 9 * SOURCES)), "{shared}");
        ask("job-7".to_owned(), begin + IDLE);
        ask("late".to_owned(), begin + IDLE);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("late") && text.contains("job-7\""), "{text}");
        assert!(!text.contains("job-8\""), "in none of the families: {text}");
        assert_eq!(series(&registry).len(), 3);
    }
}
