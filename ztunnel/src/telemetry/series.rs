//! The label sets in use: a bounded number, each with its counters.
//!
//! Peers choose part of the labels, so their number must not grow with what peers do.
//! At the bound, new label sets share one series whose labels read `other`. A label set
//! that no connection used for a while is forgotten: most often its workload is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use super::ResponseFlags;
use super::labels::TcpLabels;

/// How often a full map is searched for what can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Bounds of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Label sets of connections.
    pub most: usize,
    /// A label set is forgotten when no connection used it for this long.
    pub idle: Duration,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self { most: 5000, idle: Duration::from_secs(3600) }
    }
}

/// The counters of one label set.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    failed: [AtomicU64; ResponseFlags::ALL.len()],
    /// Seconds of our clock when it was last used.
    used: AtomicU64,
}

impl Series {
    pub(super) fn failed(&self, flags: ResponseFlags) {
        self.failed[flags as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Failures by their flags, without those that never were.
    pub(super) fn failures(&self) -> impl Iterator<Item = (ResponseFlags, u64)> {
        let counted =
            |flags: ResponseFlags| (flags, self.failed[flags as usize].load(Ordering::Relaxed));
        ResponseFlags::ALL.into_iter().map(counted).filter(|(_, count)| *count > 0)
    }

    pub(super) fn touch(&self, now: Duration) {
        self.used.store(now.as_secs(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct SeriesMap {
    limits: SeriesLimits,
    map: RwLock<Map>,
    other: Arc<Series>,
}

#[derive(Debug, Default)]
struct Map {
    series: HashMap<TcpLabels, Arc<Series>>,
    swept: Duration,
}

/// A label set and its counters.
pub(super) type Entry = (TcpLabels, Arc<Series>);

impl SeriesMap {
    pub(super) fn new(limits: SeriesLimits) -> Self {
        Self { limits, map: RwLock::default(), other: Arc::default() }
    }

    /// The counters of these labels. `now` is the time since some fixed moment.
    pub(super) fn get(&self, labels: TcpLabels, now: Duration) -> Arc<Series> {
        let found = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            map.series.get(&labels).cloned()
        };
        let series = found.unwrap_or_else(|| self.make(labels, now));
        series.touch(now);
        series
    }

    fn make(&self, labels: TcpLabels, now: Duration) -> Arc<Series> {
        let mut map = self.write();
        if let Some(series) = map.series.get(&labels) {
            return Arc::clone(series);
        }
        if map.series.len() >= self.limits.most && now >= map.swept + SWEEP_EVERY {
            map.sweep(self.limits.idle, now);
        }
        if map.series.len() >= self.limits.most {
            return Arc::clone(&self.other);
        }
        Arc::clone(map.series.entry(labels).or_default())
    }

    /// Every label set, the shared one last and only if it was ever needed.
    pub(super) fn all(&self, now: Duration) -> Vec<Entry> {
        let mut map = self.write();
        map.sweep(self.limits.idle, now);
        let known = map.series.iter().map(|(labels, series)| (labels.clone(), Arc::clone(series)));
        let mut all: Vec<_> = known.collect();
        let shared = &self.other;
        if shared.opened.load(Ordering::Relaxed) > 0 || shared.failures().next().is_some() {
            all.push((TcpLabels::Other, Arc::clone(shared)));
        }
        all
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    /// Forgets what nobody holds and nobody used lately. Nobody can take hold of it
    /// meanwhile: we are called with the map locked.
    fn sweep(&mut self, idle: Duration, now: Duration) {
        self.swept = now;
        self.series.retain(|_, series| {
            let used = Duration::from_secs(series.used.load(Ordering::Relaxed));
            Arc::strong_count(series) > 1 || now < used + idle
        });
    }
}
