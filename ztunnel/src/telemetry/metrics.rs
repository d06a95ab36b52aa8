//! The counters behind [`super::Telemetry`], and how they are read.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::connection::Record;
use super::labels::TcpLabels;
use super::open::OpenConnections;
use super::series::{Entry, Series, SeriesLimits, SeriesMap};
use super::timing::Timing;
use super::{ConnectionOpen, Direction, Refusal, Reporter, ResponseFlags, Security};

#[derive(Debug)]
pub(super) struct Metrics {
    begun: Instant,
    series: SeriesMap,
    pub(super) open: OpenConnections,
    refused: Family<RefusedLabels, Counter>,
    pub(super) passthrough_unknown_destination: Counter,
    pub(super) accepts_failed: Counter,
    pub(super) timing: Timing,
}

/// Labels of the counter of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    direction: Direction,
    reason: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, limits: SeriesLimits) -> Arc<Self> {
        let metrics = Arc::new(Self {
            begun: Instant::now(),
            series: SeriesMap::new(limits),
            open: OpenConnections::default(),
            refused: Family::default(),
            passthrough_unknown_destination: Counter::default(),
            accepts_failed: Counter::default(),
            timing: Timing::register(registry),
        });
        registry.register(
            "sluice_connections_refused",
            "Connections closed on purpose before a byte was carried",
            metrics.refused.clone(),
        );
        registry.register(
            "sluice_passthrough_unknown_destination",
            "Connections sent on in clear text, to destinations outside the mesh",
            metrics.passthrough_unknown_destination.clone(),
        );
        registry.register(
            "sluice_accepts_failed",
            "Attempts to take a connection that failed, most often for want of descriptors",
            metrics.accepts_failed.clone(),
        );
        registry.register_collector(Box::new(Traffic(Arc::clone(&metrics))));
        metrics
    }

    /// The counters that a connection shares with others of its labels. What is counted
    /// at its end has the same labels, so that opened minus closed is the number that is
    /// open; only failures carry a flag.
    pub(super) fn series_of(&self, connection: &ConnectionOpen) -> Arc<Series> {
        self.series.get(TcpLabels::of(connection), self.begun.elapsed())
    }

    /// Notes that a label set was used.
    pub(super) fn touch(&self, series: &Series) {
        series.touch(self.begun.elapsed());
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.series_of(&refusal.connection).failed(refusal.failure.flags);
        let direction = refusal.connection.direction;
        self.refused.get_or_create(&RefusedLabels { direction, reason: refusal.reason }).inc();
    }
}

/// Reads the counters of connections when somebody asks.
#[derive(Debug)]
struct Traffic(Arc<Metrics>);

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let metrics = &self.0;
        let mut open = Open::default();
        metrics.open.for_each(|record| {
            record.settle();
            open.count(record);
        });
        let all = metrics.series.all(metrics.begun.elapsed());
        for (name, help, value) in COUNTERS {
            counter(&mut encoder, (name, help), &all, value)?;
        }
        failures(&mut encoder, &all)?;
        open.encode(&mut encoder)?;
        let (name, help) = ("sluice_metrics_label_sets", "Label sets of connections in use");
        let used = u64::try_from(all.len()).unwrap_or(u64::MAX);
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&used)
    }
}

type Counted = (&'static str, &'static str, fn(&Series) -> &AtomicU64);

const COUNTERS: [Counted; 4] = [
    ("istio_tcp_connections_opened", "TCP connections opened", |series| &series.opened),
    ("istio_tcp_connections_closed", "TCP connections closed", |series| &series.closed),
    ("istio_tcp_sent_bytes", "Bytes of responses", |series| &series.sent),
    ("istio_tcp_received_bytes", "Bytes of requests", |series| &series.received),
];

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    all: &[Entry],
    value: fn(&Series) -> &AtomicU64,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in all {
        // What was only ever refused was never opened.
        if series.opened.load(Ordering::Relaxed) > 0 {
            let labels = labels.flagged(ResponseFlags::None);
            let value = value(series).load(Ordering::Relaxed);
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

fn failures(encoder: &mut DescriptorEncoder<'_>, all: &[Entry]) -> Result<(), Error> {
    let (name, help) = ("istio_tcp_connections_failed", "TCP connections that did not end well");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in all {
        for (flags, count) in series.failures() {
            let labels = labels.flagged(flags);
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

/// Open connections, counted when asked for.
#[derive(Default)]
struct Open {
    by_reporter: [i64; 2],
    by_kind: [[i64; 2]; 2],
}

impl Open {
    fn count(&mut self, record: &Record) {
        let facts = &record.facts;
        self.by_reporter[facts.reporter as usize] += 1;
        self.by_kind[facts.direction as usize][facts.security as usize] += 1;
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let reporters = [Reporter::Source, Reporter::Destination];
        let labels = reporters.map(|reporter| [("reporter", reporter.as_str())]);
        let values = [(&labels[0], self.by_reporter[0]), (&labels[1], self.by_reporter[1])];
        gauges(encoder, ("istio_tcp_sockets_open", "Connections carried now"), &values)?;
        let kinds: Vec<_> = [Direction::Inbound, Direction::Outbound]
            .into_iter()
            .flat_map(|direction| {
                [Security::MutualTls, Security::Plain].map(|security| (direction, security))
            })
            .map(|(direction, security)| {
                let labels = [
                    ("direction", direction.as_str()),
                    ("connection_security_policy", security.as_str()),
                ];
                (labels, self.by_kind[direction as usize][security as usize])
            })
            .collect();
        let kinds: Vec<_> = kinds.iter().map(|(labels, count)| (labels, *count)).collect();
        gauges(encoder, ("sluice_connections_open", "Connections carried now"), &kinds)
    }
}

/// One gauge with its label sets.
fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: &[(&L, i64)],
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        metric.encode_family(*labels)?.encode_gauge(value)?;
    }
    Ok(())
}
