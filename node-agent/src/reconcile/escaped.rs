//! Pods of the mesh that started without us: their containers ran, and dialled, before
//! anything was captured. They are captured in place like any other; where the operator wants
//! it so, they are evicted besides, so that another pod starts in their place that was
//! captured before its first byte.
//!
//! A pod that has joined the mesh by a label has not escaped: it was outside by choice, and
//! nobody restarts it. What was chosen while no agent looked is not known.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::evictions::{Evictions, Spared};
use super::run::Reconciler;
use super::slot::Slot;
use crate::enrollment::Enrollment;
use crate::facts::{PodFacts, PodUid};
use crate::kube::{EventReason, Eviction, KubeError};

/// Between attempts: disruption budgets take their time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What becomes of a pod of the mesh that started unseen by the plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEscaped {
    /// It is captured in place.
    #[default]
    Capture,
    /// It is captured in place, and evicted.
    Evict,
}

impl Reconciler {
    /// Remembers that a pod is outside of the mesh because it is meant to be.
    pub(super) fn note_choice(&self, uid: &PodUid, slot: &Slot) {
        let wanted = self.table().wanted(uid, &self.settings());
        if matches!(wanted, Some(Enrollment::Skip(reason)) if reason.releases()) {
            slot.is_outside_by_choice();
        }
    }

    /// A pod was found running outside the mesh, and nobody had told of its start.
    pub(super) fn escaped(&self, facts: &PodFacts) {
        let wanted = self.table().wanted(&facts.uid, &self.settings());
        let belongs = matches!(wanted, Some(Enrollment::Capture(_)));
        let by_choice = self.slot(&facts.uid).was_outside_by_choice();
        if self.inner.pace.on_escaped == OnEscaped::Capture || !belongs || by_choice {
            return;
        }
        let (this, facts) = (self.clone(), facts.clone());
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            stop.run_until_cancelled(this.evict(&facts)).await;
        });
    }

    /// Until the pod ends, or leaves the mesh.
    async fn evict(&self, facts: &PodFacts) {
        let (pod, uid) = (&facts.name, &facts.uid);
        let mut pause = FIRST_PAUSE;
        while self.belongs(uid) {
            let why = match self.try_evict(facts).await {
                Err(spared) if spared.passes() => spared.to_string(),
                Err(spared) => {
                    tracing::warn!(%pod, %uid, %spared, "not evicted");
                    let message = format!(
                        "the pod had started uncaptured and is captured in place: {spared}"
                    );
                    return self.tell(facts, EventReason::NotEvicted, message);
                }
                Ok(Ok(Eviction::Begun)) => {
                    tracing::warn!(%pod, %uid, "evicted, because it had started uncaptured");
                    let message = "the pod had started uncaptured; one that is captured from the \
                                   beginning takes its place";
                    return self.tell(facts, EventReason::Evicted, message.into());
                }
                Ok(Ok(Eviction::Gone)) => return,
                Ok(Ok(Eviction::Unmanaged)) => {
                    tracing::warn!(%pod, %uid, "not evicted: it has no controller");
                    let message = "the pod had started uncaptured and is captured in place: \
                                   nobody would make another one if it were evicted";
                    return self.tell(facts, EventReason::NotEvicted, message.into());
                }
                Ok(Ok(Eviction::Blocked(why))) => why,
                Ok(Err(error)) => error.to_string(),
            };
            tracing::info!(%pod, %uid, why, ?pause, "not evicted yet");
            let message = format!(
                "the pod had started uncaptured, is captured in place, and cannot be evicted \
                 yet: {why}"
            );
            self.tell(facts, EventReason::EvictionDelayed, message);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks, unless another pod in its place would start uncaptured as well.
    async fn try_evict(&self, facts: &PodFacts) -> Result<Result<Eviction, KubeError>, Spared> {
        let (namespace, heard) = (&facts.name.namespace, self.slot(&facts.uid).heard());
        let stands = self.inner.effects.standing.seen();
        self.evictions().may(namespace, heard, stands, Instant::now())?;
        let evicted = self.inner.effects.api.evict(facts).await;
        if let Ok(Eviction::Begun) = evicted {
            self.evictions().evicted(namespace, Instant::now());
        }
        Ok(evicted)
    }

    /// What was evicted, and whom the runtime called for.
    pub(super) fn evictions(&self) -> MutexGuard<'_, Evictions> {
        self.inner.evictions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn belongs(&self, uid: &PodUid) -> bool {
        matches!(self.table().wanted(uid, &self.settings()), Some(Enrollment::Capture(_)))
    }
}

#[cfg(test)]
mod tests;
