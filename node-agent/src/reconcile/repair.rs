//! What one pod's task does about a pod that may not be as it should be.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use capture::Options;
use netns::PodNetns;
use tokio::time::Instant;

use super::aging::Opened;
use super::effects::EffectError;
use super::flaps::{Harm, Tell};
use super::inspect::Findings;
use super::pod::{Outcome, State};
use super::run::Reconciler;
use super::slot::Slot;
use super::tend::{BETWEEN_GLANCES, OPEN_PAUSES};
use crate::enrollment::Enrollment;
use crate::facts::{PodFacts, PodUid};
use crate::kube::EventReason;

impl Reconciler {
    /// A light look at a pod that has rules of ours; one that shows anything unusual has it
    /// put right.
    pub(super) fn glance(&self, uid: &PodUid) -> Option<Harm> {
        let (effects, longest) = (&self.inner.effects, self.inner.pace.compare_interval);
        let suspicion = if let Some(options) = self.applied(uid) {
            effects.suspicion(uid, &options, longest)
        } else if let Some(options) = self.drained(uid) {
            effects.drain_suspicion(uid, &options)
        } else {
            // The news of a pod on its way in are heard and forgotten.
            if let Some(watch) = effects.observer.known(uid) {
                drop(watch.look());
            }
            None
        };
        if suspicion.is_some()
            && let Some(pod) = self.table().get_mut(uid)
        {
            pod.due = true;
        }
        suspicion
    }

    /// Whether a light look at the pod is possible. One that cannot be watched is compared with
    /// what it should be at the interval.
    pub(super) fn sees(&self, uid: &PodUid) -> bool {
        self.inner.effects.observer.known(uid).is_some_and(|watch| watch.look().is_ok())
    }

    /// The rules of a pod whose connections are led to ztunnel, where it is known which these
    /// are.
    pub(super) fn applied(&self, uid: &PodUid) -> Option<Options> {
        let table = self.table();
        let redirects = table.get(uid).filter(|pod| pod.state.redirects());
        redirects.and_then(|pod| pod.applied.clone())
    }

    /// The same of a pod that drains, before it did.
    fn drained(&self, uid: &PodUid) -> Option<Options> {
        let table = self.table();
        let drains = table.get(uid).filter(|pod| pod.state.drains());
        drains.and_then(|pod| pod.applied.clone())
    }

    /// Puts a pod's own rules right before it is given others: those may have to wait for
    /// ztunnel.
    pub(super) async fn keep_closed(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<(), EffectError> {
        if let Some(options) = self.drained(uid) {
            return self.drain(uid, held, &options).await;
        }
        let Some(options) = self.applied(uid) else { return Ok(()) };
        let (facts, netns) = self.subject(uid, held).await?;
        self.put_right(&facts, &netns, &options).await
    }

    /// Waits for what others have to do, and keeps a captured pod closed meanwhile: neither a
    /// ztunnel that takes its time nor a crowd of other pods may leave it open.
    pub(super) async fn closed_while<T>(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
        waiting: impl Future<Output = T>,
    ) -> T {
        let mut waiting = pin!(waiting);
        let mut failures = 0;
        loop {
            tokio::select! {
                done = &mut waiting => return done,
                () = self.wants_repair(uid, failures) => {}
            }
            // Not given up half-way: who is waited for can wait for that.
            failures = match self.keep_closed(uid, held).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::debug!(%uid, %error, "a waiting pod is not put right");
                    failures + 1
                }
            };
        }
    }

    /// Until a captured pod is to be put right: the kernel has news that are not good, or the
    /// last attempt has failed, and one that flaps has rested.
    async fn wants_repair(&self, uid: &PodUid, failures: u32) {
        match failures.checked_sub(1) {
            None => self.harmed(uid).await,
            Some(before) => tokio::time::sleep(OPEN_PAUSES.after(before)).await,
        }
        let slot = self.slot(uid);
        loop {
            let rest = self.rest_before_repair(uid, &slot);
            if rest.is_zero() {
                return;
            }
            // What opens the pod may come while it rests from what closes it.
            tokio::time::sleep(rest.min(BETWEEN_GLANCES)).await;
        }
    }

    /// How long a pod that flaps has to wait before it is repaired again.
    pub(super) fn rest_before_repair(&self, uid: &PodUid, slot: &Slot) -> Duration {
        // What is due for another reason than what a light look shows is no repair.
        let Some(harm) = self.glance(uid) else { return Duration::ZERO };
        slot.flaps().rest(harm, Instant::now())
    }

    /// Compares a captured pod with what it should be and repairs it in place.
    pub(super) async fn verify(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
        options: &Options,
    ) -> Result<(), EffectError> {
        let (facts, netns) = self.subject(uid, held).await?;
        self.put_right(&facts, &netns, options).await?;
        // What ztunnel has to say about it must not keep the rules from being looked at.
        self.becomes(uid, Outcome::PutRight(options.clone()));
        self.let_probes_through(uid, options).await;
        let served = tokio::select! {
            served = self.inner.effects.keep_served(&facts, &netns, options) => served,
            // Due again already; ztunnel is asked again after that.
            () = self.alarmed(uid) => return Ok(()),
        };
        // One that leaves is not kept for what ztunnel cannot do.
        if served.is_err() && self.is_wanted(uid) {
            if let Some(pod) = self.table().get_mut(uid) {
                pod.due = true;
            }
            return served;
        }
        Ok(())
    }

    pub(super) fn is_wanted(&self, uid: &PodUid) -> bool {
        let wanted = self.table().wanted(uid, &self.settings());
        matches!(wanted, Some(Enrollment::Capture(_)))
    }

    pub(super) async fn put_right(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        // The semaphore is never closed.
        let _turn = self.inner.repairs.acquire().await;
        let (effects, began) = (&self.inner.effects, Instant::now());
        let longest = self.inner.pace.compare_interval;
        let mut findings = effects.inspect(facts, netns, options, longest).await?;
        if findings.drifts.is_empty() {
            self.overtaken(facts, findings.overtaken);
            return self.forget_lookups(&facts.uid, netns).await;
        }
        let tell = self.slot(&facts.uid).flaps().repair(findings.harm(), Instant::now());
        // One that leaves has nothing left to say about itself.
        if tell != Tell::Nothing && self.state(&facts.uid) == State::Captured {
            self.tell_repairing(facts, &findings.text());
        }
        if let Tell::Flapping(times) = tell {
            self.flaps(facts, &findings, times);
        }
        if findings.harm() == Harm::Opens {
            // What was opened meanwhile may be direct. Noted before, for a repair may fail
            // when the rules are back.
            self.age(&facts.uid, Opened::Meanwhile);
            self.owe_lookups(&facts.uid);
        }
        effects.mend(facts, netns, options, &mut findings).await?;
        self.overtaken(facts, findings.overtaken.take());
        self.inner.metrics.repaired(&findings.kinds(), began.elapsed());
        self.repaired(facts, &findings, tell, began.elapsed());
        self.forget_lookups(&facts.uid, netns).await
    }

    /// Lookups of the time without the rules that are in place now would decide about later
    /// ones.
    pub(super) fn owe_lookups(&self, uid: &PodUid) {
        if let Some(pod) = self.table().get_mut(uid) {
            pod.lookups_owed = true;
        }
    }

    /// Has the kernel forget them. Owed until it has worked.
    pub(super) async fn forget_lookups(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
    ) -> Result<(), EffectError> {
        if self.table().get(uid).is_some_and(|pod| pod.lookups_owed) {
            self.inner.effects.rules.forget_lookups(netns).await?;
            self.becomes(uid, Outcome::LookupsForgotten);
        }
        Ok(())
    }

    /// Told before the repair, which somebody may undo half-way through.
    fn flaps(&self, facts: &PodFacts, findings: &Findings, times: u32) {
        let (pod, uid, drifts) = (&facts.name, &facts.uid, findings.text());
        tracing::warn!(%pod, %uid, %drifts, times, "pod flaps");
        let text = format!(
            "had to be repaired {times} times without a calm minute in between, which from now \
             on is told less often; last: {drifts}"
        );
        self.tell(facts, EventReason::Flapping, text);
    }

    fn repaired(&self, facts: &PodFacts, findings: &Findings, tell: Tell, took: Duration) {
        let (pod, uid, drifts) = (&facts.name, &facts.uid, findings.text());
        if tell != Tell::Repair {
            tracing::debug!(%pod, %uid, %drifts, ?took, "repaired again");
            return;
        }
        tracing::warn!(%pod, %uid, %drifts, ?took, "pod had drifted, repaired");
        let text = format!("repaired within {} ms: {drifts}", took.as_millis());
        self.tell(facts, EventReason::Drifted, text);
    }
}

#[cfg(test)]
mod tests;
