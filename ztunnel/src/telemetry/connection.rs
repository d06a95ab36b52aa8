//! One connection, from open to close.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::access::{self, Bytes};
use super::metrics::{ConnectionMetrics, Metrics};
use super::{ConnectionOpen, Failure, ResponseFlags};

/// Counts a connection and reports its end exactly once. Dropped without
/// [`ConnectionGuard::close`], it reports a failure with the text `dropped`.
#[derive(Debug)]
pub struct ConnectionGuard {
    open: Option<Open>,
    sent: AtomicU64,
    received: AtomicU64,
    metrics: ConnectionMetrics,
}

#[derive(Debug)]
struct Open {
    connection: ConnectionOpen,
    since: Instant,
    metrics: Arc<Metrics>,
}

impl ConnectionGuard {
    pub(super) fn new(metrics: &Arc<Metrics>, connection: ConnectionOpen) -> Self {
        Self {
            metrics: metrics.opened(&connection),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            open: Some(Open { connection, since: Instant::now(), metrics: Arc::clone(metrics) }),
        }
    }

    /// Bytes written back to the connection's source (the response direction), whichever
    /// end reports.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.sent.inc_by(bytes);
    }

    /// Bytes read from the connection's source (the request direction), whichever end
    /// reports.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.received.inc_by(bytes);
    }

    /// The connection ended.
    pub fn close(mut self, result: Result<(), Failure>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<(), Failure>) {
        let Some(open) = self.open.take() else { return };
        let bytes = Bytes {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        };
        self.metrics.closed.inc();
        self.metrics.open.dec();
        let failure = result.err();
        if let Some(failure) = &failure {
            open.metrics.failed(&open.connection, failure.flags);
        }
        access::closed(&open.connection, bytes, open.since.elapsed(), failure.as_ref());
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.open.is_some() {
            let failure = Failure { flags: ResponseFlags::None, text: "dropped".to_owned() };
            self.finish(Err(failure));
        }
    }
}
