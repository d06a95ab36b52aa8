//! One connection, from open to close.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::access::{self, Bytes};
use super::metrics::Metrics;
use super::series::Series;
use super::{ConnectionOpen, Failure, ResponseFlags};

/// Counts a connection and reports its end exactly once. Dropped without
/// [`ConnectionGuard::close`], it reports a failure with the text `dropped`.
#[derive(Debug)]
pub struct ConnectionGuard {
    record: Arc<Record>,
    metrics: Arc<Metrics>,
    /// Its number among the open ones.
    number: u64,
    finished: bool,
}

impl ConnectionGuard {
    pub(super) fn new(metrics: &Arc<Metrics>, facts: ConnectionOpen) -> Self {
        let series = metrics.series_of(&facts);
        series.opened.fetch_add(1, Ordering::Relaxed);
        let record = Arc::new(Record {
            facts,
            since: Instant::now(),
            sent: Tally::default(),
            received: Tally::default(),
            series,
        });
        let number = metrics.open.insert(Arc::clone(&record));
        Self { record, metrics: Arc::clone(metrics), number, finished: false }
    }

    /// Bytes written back to the connection's source (the response direction), whichever
    /// end reports.
    pub fn add_sent(&self, bytes: u64) {
        self.record.sent.add(bytes);
    }

    /// Bytes read from the connection's source (the request direction), whichever end
    /// reports.
    pub fn add_received(&self, bytes: u64) {
        self.record.received.add(bytes);
    }

    /// The connection ended.
    pub fn close(mut self, result: Result<(), Failure>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<(), Failure>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let record = &self.record;
        self.metrics.open.remove(self.number);
        record.settle();
        let failure = result.err();
        if let Some(failure) = &failure {
            record.series.failed(failure.flags);
        }
        record.series.closed.fetch_add(1, Ordering::Relaxed);
        self.metrics.touch(&record.series);
        let bytes = Bytes { sent: record.sent.total(), received: record.received.total() };
        access::closed(&record.facts, bytes, record.since.elapsed(), failure.as_ref());
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if !self.finished {
            let failure = Failure { flags: ResponseFlags::None, text: "dropped".to_owned() };
            self.finish(Err(failure));
        }
    }
}

/// What is kept of a connection while it is open. The data path touches nothing but its
/// own two totals; who reads the metrics collects from them.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) facts: ConnectionOpen,
    since: Instant,
    sent: Tally,
    received: Tally,
    series: Arc<Series>,
}

impl Record {
    /// Tells the series what it has not heard of yet.
    pub(super) fn settle(&self) {
        self.series.sent.fetch_add(self.sent.untold(), Ordering::Relaxed);
        self.series.received.fetch_add(self.received.untold(), Ordering::Relaxed);
    }
}

/// Bytes of one direction.
#[derive(Debug, Default)]
struct Tally {
    total: AtomicU64,
    told: AtomicU64,
}

impl Tally {
    fn add(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What came since the last call. Of two callers at once, none takes what the other
    /// has taken.
    fn untold(&self) -> u64 {
        let total = self.total();
        total.saturating_sub(self.told.fetch_max(total, Ordering::Relaxed))
    }
}
