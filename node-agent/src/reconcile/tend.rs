//! Carries plans out: one task per pod, a few pods at a time, failures retried with
//! growing pauses. A pod that cannot be helped hurts only itself.

use std::time::Duration;

use netns::PodNetns;
use tokio::time::Instant;

use super::effects::EffectError;
use super::flaps::Harm;
use super::plan::Action;
use super::pod::{Outcome, State};
use super::run::Reconciler;
use super::slot::Slot;
use crate::facts::PodUid;

/// After steps that fail: the first, the longest.
const PAUSES: Pauses = Pauses(Duration::from_millis(500), Duration::from_secs(30));
/// The same while clear text may pass: somebody may have undone a repair half-way through.
pub(super) const OPEN_PAUSES: Pauses = Pauses(Duration::from_millis(125), Duration::from_secs(1));
/// How often news of a pod are listened to that has a crowd of them.
pub(super) const BETWEEN_GLANCES: Duration = Duration::from_millis(20);
/// How often the connections of a leaving pod are counted.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// After failures: the first pause, and the longest.
pub(super) struct Pauses(Duration, Duration);

impl Pauses {
    /// How long to wait after so many failures before this one.
    pub(super) fn after(&self, failures: u32) -> Duration {
        self.0.saturating_mul(1 << failures.min(10)).min(self.1)
    }
}

/// When a pod's task goes on.
enum Next {
    Now,
    After(Duration),
    Never,
}

/// What one pod's task remembers between steps.
struct Tending {
    failures: u32,
    stage: (State, Instant),
    looked: Instant,
    /// The last step could not put the pod right: what comes after it has the next turn.
    yields: bool,
}

impl Tending {
    /// To be called at every step: a state that the pod has left and comes back to begins
    /// anew, or a second withdrawal would not give peers their time.
    fn note(&mut self, state: State) {
        if self.stage.0 != state {
            self.stage = (state, Instant::now());
        }
    }

    /// What is left of `whole` since the pod entered its state.
    fn left(&self, whole: Duration) -> Duration {
        whole.saturating_sub(self.stage.1.elapsed())
    }
}

impl Reconciler {
    pub(super) async fn tend(&self, uid: &PodUid, slot: &Slot) {
        let now = Instant::now();
        let stage = (State::Unknown, now);
        let mut tending = Tending { failures: 0, stage, looked: now, yields: false };
        loop {
            let pause = match self.step(uid, slot, &mut tending).await {
                Next::Now if self.inner.stop.is_cancelled() => return,
                Next::Now => continue,
                Next::After(pause) => pause,
                Next::Never => return,
            };
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = slot.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.harmed(uid) => {}
            }
        }
    }

    /// Like [`Reconciler::alarmed`], and by looks at the interval, for what the kernel does not
    /// tell of: a listener that was ended.
    pub(super) async fn harmed(&self, uid: &PodUid) {
        let interval = self.inner.pace.verify_interval;
        // Either is a reason to look.
        while tokio::time::timeout(interval, self.alarmed(uid)).await.is_err() {
            if self.glance(uid).is_some() {
                return;
            }
        }
    }

    /// Until the kernel has news about the pod that are not good. Others do not end a pause.
    pub(super) async fn alarmed(&self, uid: &PodUid) {
        loop {
            self.inner.effects.observer.noticed(uid).await;
            if self.glance(uid).is_some() {
                return;
            }
            tokio::time::sleep(BETWEEN_GLANCES).await;
        }
    }

    async fn step(&self, uid: &PodUid, slot: &Slot, tending: &mut Tending) -> Next {
        let mut held = slot.held.lock().await;
        if self.retire(uid) {
            return Next::Never;
        }
        let interval = self.inner.pace.verify_interval;
        if std::mem::take(&mut tending.yields) {
            self.leave_all_the_same(uid);
        } else if tending.looked.elapsed() >= interval {
            tending.looked = Instant::now();
            self.glance(uid);
        }
        let older = self.mark_older(uid);
        self.note_choice(uid, slot);
        tending.note(self.state(uid));
        let action = self.plan(uid);
        // What it rests on is left to the next life before it shows in the kernel.
        self.write_memory().await;
        match &action {
            // Whoever has looked meanwhile has taken the kernel's news in: a pod rests after a
            // look that shows nothing.
            Action::Idle if self.sees(uid) && self.glance(uid).is_some() => {
                return Next::After(BETWEEN_GLANCES);
            }
            Action::Idle => {
                let look = interval.saturating_sub(tending.looked.elapsed());
                return Next::After(
                    older.filter(|older| !older.is_zero()).map_or(look, |older| look.min(older)),
                );
            }
            Action::AwaitPeers => {
                let left = tending.left(self.inner.pace.withdraw_wait);
                let pause = left.min(interval);
                return self.wait_or_enter(uid, tending, (left, pause), Outcome::PeersKnow);
            }
            Action::AwaitDrained => {
                let left = tending.left(self.inner.pace.drain_deadline);
                let left =
                    if self.is_drained(uid, &mut held).await { Duration::ZERO } else { left };
                let pause = left.min(DRAIN_LOOK);
                return self.wait_or_enter(uid, tending, (left, pause), Outcome::Drained);
            }
            Action::Verify(_) | Action::Repair(_) | Action::Drain(_) => {
                if let Some(rest) = self.rests(uid, slot).await {
                    return Next::After(rest);
                }
            }
            _ => {}
        }
        self.inner.metrics.acted(&action);
        match self.act_in_turn(uid, &mut held, &action).await {
            Ok(()) => {
                tending.failures = 0;
                Next::Now
            }
            Err(error) => self.after_failure(uid, tending, &action, &error),
        }
    }

    /// What is left of the rest of a pod that flaps.
    async fn rests(&self, uid: &PodUid, slot: &Slot) -> Option<Duration> {
        let rest = self.rest_before_repair(uid, slot);
        // A crowd of news must not have this asked all the time.
        let pause = rest.min(BETWEEN_GLANCES);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        (!rest.is_zero()).then(|| rest.saturating_sub(pause))
    }

    fn after_failure(
        &self,
        uid: &PodUid,
        tending: &mut Tending,
        action: &Action,
        error: &EffectError,
    ) -> Next {
        self.failed(uid, action, error);
        if let Action::EndOlder(_) = action {
            // It has a pause of its own, and what comes after it need not wait.
            self.becomes(uid, Outcome::OlderNotEnded(std::time::Instant::now()));
            return Next::Now;
        }
        // Also after what has nothing to do with it: nobody else may look for a while.
        let open = self.glance(uid) == Some(Harm::Opens);
        let keeps = matches!(action, Action::Verify(_) | Action::Drain(_));
        tending.yields = keeps;
        let pauses = if open { OPEN_PAUSES } else { PAUSES };
        let pause = pauses.after(tending.failures);
        tending.failures += 1;
        Next::After(pause)
    }

    /// What waits for the API is put off when the pod needs to be repaired, and takes nobody's
    /// turn.
    async fn act_in_turn(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
        action: &Action,
    ) -> Result<(), EffectError> {
        match action {
            Action::Annotate(_) | Action::Withdraw => tokio::select! {
                acted = self.act(uid, held, action) => acted,
                () = self.alarmed(uid) => Ok(()),
            },
            Action::Verify(_) => self.act(uid, held, action).await,
            _ => {
                if matches!(action, Action::Repair(_))
                    && let Err(error) = self.keep_closed(uid, held).await
                {
                    tracing::debug!(%uid, %error, "the rules so far are not put right");
                }
                // The semaphore is never closed.
                let _turn = self.closed_while(uid, held, self.inner.limit.acquire()).await;
                self.act(uid, held, action).await
            }
        }
    }

    /// Whether the task of a pod that is known no more may end. Under the lock that hands
    /// out slots, so that nobody gets a slot whose task is about to end.
    fn retire(&self, uid: &PodUid) -> bool {
        let mut slots = self.slots();
        let known = self.table().get(uid).is_some();
        if !known {
            slots.pods.remove(uid);
        }
        !known
    }

    pub(super) fn state(&self, uid: &PodUid) -> State {
        let table = self.table();
        table.get(uid).map_or(State::Unknown, |pod| pod.state)
    }

    /// Of what is left, it pauses for so long.
    fn wait_or_enter(
        &self,
        uid: &PodUid,
        tending: &Tending,
        (left, pause): (Duration, Duration),
        next: Outcome,
    ) -> Next {
        if left.is_zero() {
            self.becomes(uid, next);
            return Next::Now;
        }
        // What has failed and is still to be done is tried again.
        let failed = tending.failures > 0 && self.glance(uid).is_some();
        if failed { Next::Now } else { Next::After(pause) }
    }

    /// A count that fails is no reason to wait less: the deadline bounds it.
    async fn is_drained(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> bool {
        let Ok(netns) = self.netns(uid, held).await else {
            return false;
        };
        matches!(self.inner.effects.rules.proxied_connections(&netns).await, Ok(0))
    }
}
