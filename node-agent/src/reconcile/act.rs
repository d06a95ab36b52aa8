//! One action on one pod, and what is believed afterwards.

use netns::PodNetns;

use super::effects::EffectError;
use super::plan::Action;
use super::pod::State;
use super::run::Reconciler;
use crate::facts::{Annotations, PodFacts, PodUid};
use crate::kube::EventReason;

impl Reconciler {
    pub(super) async fn netns(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<PodNetns, EffectError> {
        match held {
            Some(netns) => Ok(netns.clone()),
            None => match self.inner.effects.open(uid).await {
                Ok(netns) => Ok(netns),
                Err(error) => self.returned_netns(uid).await.ok_or(error),
            },
        }
    }

    /// The namespace that a ztunnel has given back, if it has the pod's addresses.
    async fn returned_netns(&self, uid: &PodUid) -> Option<PodNetns> {
        let netns = self.inner.effects.link.netns(uid)?;
        let ips = self.facts(uid)?.ips;
        let checked = self.inner.effects.locator.check(&netns, &ips).await;
        (checked.is_ok() && !ips.is_empty()).then_some(netns)
    }

    /// Carries one action out and writes down what came of it.
    pub(super) async fn act(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
        action: &Action,
    ) -> Result<(), EffectError> {
        let effects = &self.inner.effects;
        match action {
            Action::Idle | Action::AwaitPeers | Action::AwaitDrained => Ok(()),
            Action::Look => self.look(uid, held).await,
            Action::Capture(options) => {
                let (facts, netns) = self.subject(uid, held).await?;
                effects.capture(&facts, &netns, options).await?;
                self.captured(&facts, held, netns, options);
                self.age(uid);
                Ok(())
            }
            Action::Repair(options) => {
                let (facts, netns) = self.subject(uid, held).await?;
                effects.repair(&facts, &netns, options).await?;
                self.repaired(&facts, held, netns, options).await
            }
            Action::Verify(options) => {
                let (facts, netns) = self.subject(uid, held).await?;
                let drifts = effects.verify(&facts, &netns, options).await?;
                self.verified(&facts, &drifts);
                if !drifts.is_empty() {
                    // What was opened meanwhile may have been direct.
                    self.age(uid);
                    effects.rules.forget_lookups(&netns).await?;
                }
                Ok(())
            }
            Action::EndOlder(options) => {
                let netns = self.netns(uid, held).await?;
                self.end_older(uid, &netns, options).await
            }
            Action::Annotate(said) => self.annotate(uid, said).await,
            Action::Withdraw => {
                self.annotate(uid, &Annotations::default()).await?;
                self.enter(uid, |pod| pod.state = State::Withdrawn);
                Ok(())
            }
            Action::Drain(options) => {
                effects.rules.drain(&self.netns(uid, held).await?, options).await?;
                self.enter(uid, |pod| pod.state = State::Draining);
                Ok(())
            }
            Action::Remove => self.remove(uid, held).await,
            Action::Forget => self.forget(uid, held).await,
        }
    }

    async fn subject(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<(PodFacts, PodNetns), EffectError> {
        let facts = self.facts(uid).ok_or(EffectError::NoFacts)?;
        Ok((facts, self.netns(uid, held).await?))
    }

    async fn look(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> Result<(), EffectError> {
        let (facts, netns) = self.subject(uid, held).await?;
        let wanted = self.options(uid);
        let captured = self.inner.effects.look(&facts, &netns, &wanted).await?;
        *held = captured.then_some(netns);
        self.enter(uid, |pod| {
            pod.state = if captured { State::Captured } else { State::Outside };
            // Whether these are the rules is seen by the look that is due.
            pod.applied = captured.then_some(wanted);
            pod.due = captured;
            pod.aging = pod.aging.filter(|_| captured);
        });
        Ok(())
    }

    /// Its rules are in place, which may be others than before.
    async fn repaired(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
    ) -> Result<(), EffectError> {
        let before = self.table().get(&facts.uid).and_then(|pod| pod.applied.clone());
        let Some(before) = before.filter(|before| before != options) else {
            self.captured(facts, held, netns, options);
            return Ok(());
        };
        if before.dns != options.dns {
            self.inner.effects.rules.forget_lookups(&netns).await?;
        }
        self.in_place(facts, held, netns, options);
        self.age(&facts.uid);
        tracing::info!(pod = %facts.name, uid = %facts.uid, ?options, "options were changed");
        self.tell(facts, EventReason::OptionsApplied, "the pod's options count now".into());
        Ok(())
    }

    pub(super) fn captured(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
    ) {
        self.in_place(facts, held, netns, options);
        tracing::info!(pod = %facts.name, uid = %facts.uid, "captured");
        self.tell(facts, EventReason::Captured, "traffic goes through ztunnel".into());
        self.tell_mistakes(&facts.uid);
    }

    fn in_place(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
    ) {
        *held = Some(netns);
        self.enter(&facts.uid, |pod| {
            pod.state = State::Captured;
            pod.applied = Some(options.clone());
            pod.due = false;
        });
    }

    fn verified(&self, facts: &PodFacts, drifts: &[crate::rules::Drift]) {
        self.enter(&facts.uid, |pod| pod.due = false);
        if drifts.is_empty() {
            return;
        }
        self.inner.metrics.repaired();
        let drifts = crate::rules::list(drifts);
        tracing::warn!(pod = %facts.name, uid = %facts.uid, %drifts, "pod had drifted, repaired");
        self.tell(facts, EventReason::Drifted, format!("repaired: {drifts}"));
    }

    async fn annotate(&self, uid: &PodUid, said: &Annotations) -> Result<(), EffectError> {
        let facts = self.facts(uid).ok_or(EffectError::NoFacts)?;
        self.inner.effects.api.annotate(&facts, said).await?;
        // The watch will show it too; until then it need not be written again.
        self.change(|table| {
            if let Some(facts) = table.get_mut(uid).and_then(|pod| pod.facts.as_mut()) {
                facts.annotations = said.clone();
            }
        });
        Ok(())
    }

    async fn remove(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> Result<(), EffectError> {
        let netns = self.netns(uid, held).await?;
        self.inner.effects.remove(uid, &netns).await?;
        *held = None;
        self.enter(uid, |pod| {
            pod.state = State::Outside;
            pod.applied = None;
            pod.aging = None;
        });
        if let Some(facts) = self.facts(uid) {
            tracing::info!(pod = %facts.name, %uid, "released");
            self.tell(&facts, EventReason::Released, "traffic is direct again".into());
        }
        Ok(())
    }

    async fn forget(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> Result<(), EffectError> {
        let container = self.table().get(uid).and_then(|pod| pod.attachment.clone());
        let container = container.map(|attachment| attachment.container_id);
        // The namespace must not live longer than its pod, whatever ztunnel answers.
        *held = None;
        let told = self.inner.effects.forget(uid, container.as_deref()).await;
        self.change(|table| table.forgotten(uid));
        tracing::debug!(%uid, "forgotten");
        told
    }
}
