//! What the agent keeps of one pod besides its row in the table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use netns::PodNetns;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::flaps::Flaps;

/// One pod's turn: whoever acts on the pod holds `held`.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) wake: Notify,
    /// The namespace of a pod that is in the mesh, kept open for as long as it is.
    pub(super) held: Arc<tokio::sync::Mutex<Option<PodNetns>>>,
    flaps: Mutex<Flaps>,
    /// Cancelled once people have been told what they are being told about the pod; the next
    /// thing is told after it.
    told: Mutex<CancellationToken>,
    outside_by_choice: AtomicBool,
    /// When the pod was first heard of in this life of the agent.
    heard: Instant,
}

impl Default for Slot {
    fn default() -> Self {
        let told = CancellationToken::new();
        told.cancel();
        let (wake, held, flaps) = (Notify::new(), Arc::default(), Mutex::default());
        let outside_by_choice = AtomicBool::default();
        Self { wake, held, flaps, told: Mutex::new(told), outside_by_choice, heard: Instant::now() }
    }
}

impl Slot {
    /// How often the pod was repaired lately.
    pub(super) fn flaps(&self) -> MutexGuard<'_, Flaps> {
        self.flaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the pod was first heard of in this life of the agent.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// The pod was meant to be outside of the mesh, at some time in this life of the agent.
    pub(super) fn is_outside_by_choice(&self) {
        self.outside_by_choice.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub(super) fn was_outside_by_choice(&self) -> bool {
        self.outside_by_choice.load(Ordering::Relaxed)
    }

    /// What ends when everything has been told that was to be told before.
    pub(super) fn told(&self) -> CancellationToken {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues up behind what is being told: what to wait for, and what to cancel afterwards.
    pub(super) fn tell_next(&self) -> (CancellationToken, CancellationToken) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let next = CancellationToken::new();
        (std::mem::replace(&mut *told, next.clone()), next)
    }
}
