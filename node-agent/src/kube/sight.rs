//! Which watches stand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::Metrics;

/// How many kinds are watched: pods and namespaces.
const KINDS: usize = 2;

/// Shared by the watches and those who want to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight(Arc<Mutex<BTreeSet<&'static str>>>);

impl Sight {
    /// What changes of this kind is seen.
    pub(super) fn clears(&self, kind: &'static str, metrics: &Metrics) {
        metrics.watch(kind, 1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind);
    }

    /// It is not.
    pub(super) fn fails(&self, kind: &'static str, metrics: &Metrics) {
        metrics.watch(kind, 0);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
    }

    pub(super) fn is_clear(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() == KINDS
    }
}
