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
        let mut tending = Tending { failures: 0, stage: (State::Unknown, now), looked: now };
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
                () = self.alarmed(uid) => {}
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
        if tending.looked.elapsed() >= interval {
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
            Action::Idle if self.glance(uid).is_some() => return Next::Now,
            Action::Idle => {
                let look = interval.saturating_sub(tending.looked.elapsed());
                return Next::After(
                    older.filter(|older| !older.is_zero()).map_or(look, |older| look.min(older)),
                );
            }
            Action::AwaitPeers => {
                let left = tending.left(self.inner.pace.withdraw_wait);
                return self.wait_or_enter(uid, left, left, Outcome::PeersKnow);
            }
            Action::AwaitDrained => {
                let left = tending.left(self.inner.pace.drain_deadline);
                let left =
                    if self.is_drained(uid, &mut held).await { Duration::ZERO } else { left };
                return self.wait_or_enter(uid, left, left.min(DRAIN_LOOK), Outcome::Drained);
            }
            Action::Verify(_) | Action::Repair(_) => {
                let rest = self.rest_before_repair(uid, slot);
                if !rest.is_zero() {
                    // A crowd of news must not have this asked all the time.
                    let pause = rest.min(BETWEEN_GLANCES);
                    tokio::time::sleep(pause).await;
                    return Next::After(rest.saturating_sub(pause));
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
        let open = matches!(action, Action::Verify(_)) && self.glance(uid) == Some(Harm::Opens);
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

    fn wait_or_enter(&self, uid: &PodUid, left: Duration, pause: Duration, next: Outcome) -> Next {
        if !left.is_zero() {
            return Next::After(pause);
        }
        self.becomes(uid, next);
        Next::Now
    }

    /// A count that fails is no reason to wait less: the deadline bounds it.
    async fn is_drained(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> bool {
        let Ok(netns) = self.netns(uid, held).await else {
            return false;
        };
        matches!(self.inner.effects.rules.proxied_connections(&netns).await, Ok(0))
    }
}
