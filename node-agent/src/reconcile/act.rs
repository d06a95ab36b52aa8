//! One action on one pod, and what is believed afterwards.

use std::time::Instant;

use netns::PodNetns;

use super::aging::Opened;
use super::effects::EffectError;
use super::older::captures_more;
use super::plan::Action;
use super::pod::{Attachment, Outcome};
use super::run::Reconciler;
use crate::facts::{Annotations, PodFacts, PodUid};
use crate::kube::EventReason;
use crate::pod_netns::Located;
use crate::rules::Found;

impl Reconciler {
    pub(super) async fn netns(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<PodNetns, EffectError> {
        if let Some(netns) = held {
            return Ok(netns.clone());
        }
        let found = self.inner.effects.find(uid, self.facts(uid).as_ref()).await?;
        self.found(uid, &found);
        Ok(found.netns)
    }

    /// From now on the pod has a namespace to act on, whoever told of it.
    fn found(&self, uid: &PodUid, found: &Located) {
        let news = found.news.as_ref();
        let attachment = Attachment {
            container_id: news.map(|record| record.container_id.clone()).unwrap_or_default(),
            ips: news.map(|record| record.ips.clone()).unwrap_or_default(),
        };
        self.change(|table| match table.get_mut(uid) {
            Some(pod) if news.is_some() || pod.attachment.is_none() => {
                pod.attachment = Some(attachment);
            }
            _ => {}
        });
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
                self.let_probes_through(uid, options).await;
                let captured = effects.capture(&facts, &netns, options).await;
                if let Err(EffectError::LeftBehind(_)) = captured {
                    self.becomes(uid, Outcome::LeftBehind);
                }
                let overtaken = captured?;
                self.captured(&facts, held, netns, options);
                self.overtaken(&facts, Some(overtaken));
                self.age(uid, Opened::Before);
                Ok(())
            }
            Action::Repair(options) => {
                let (facts, netns) = self.subject(uid, held).await?;
                self.replace(&facts, held, netns, options).await
            }
            Action::EndOlder(options) => {
                let netns = self.netns(uid, held).await?;
                self.end_older(uid, &netns, options).await
            }
            Action::Verify(options) => self.verify(uid, held, options).await,
            Action::Annotate(said) => self.annotate(uid, said).await,
            Action::Withdraw => {
                self.annotate(uid, &Annotations::default()).await?;
                self.becomes(uid, Outcome::Withdrawn);
                Ok(())
            }
            Action::Drain(options) => {
                effects.rules.drain(&self.netns(uid, held).await?, options).await?;
                self.becomes(uid, Outcome::Draining);
                Ok(())
            }
            Action::Remove => self.remove(uid, held).await,
            Action::Forget => self.forget(uid, held).await,
        }
    }

    /// The node's own probes reach the pod, at the ports that its rules exempt. Before its
    /// rules stand: until then, the source of a probe means nothing to the pod.
    pub(super) async fn let_probes_through(&self, uid: &PodUid, options: &capture::Options) {
        let ips = self.table().addresses(uid);
        self.inner.effects.host.exempt(uid, &ips, &options.probes.ports).await;
    }

    pub(super) async fn subject(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<(PodFacts, PodNetns), EffectError> {
        let facts = self.facts(uid).ok_or(EffectError::NoFacts)?;
        Ok((facts, self.netns(uid, held).await?))
    }

    async fn look(&self, uid: &PodUid, held: &mut Option<PodNetns>) -> Result<(), EffectError> {
        let unseen = self.table().get(uid).is_some_and(|pod| pod.attachment.is_none());
        let (facts, netns) = self.subject(uid, held).await?;
        let wanted = self.options(uid);
        let (found, overtaken) = self.inner.effects.look(uid, &netns, &wanted).await?;
        if found != Found::Nothing {
            self.overtaken(&facts, Some(overtaken));
            return self.found_captured(&facts, held, netns, found).await;
        }
        *held = None;
        self.becomes(uid, Outcome::FoundNothing);
        if unseen {
            tracing::warn!(pod = %facts.name, %uid, "pod started unseen by the plugin");
            let message = "the pod started without the node agent's knowledge and has not been \
                           captured so far; it is captured now if it belongs to the mesh";
            self.tell(&facts, EventReason::StartedUnseen, message.into());
            self.escaped(&facts);
        }
        Ok(())
    }

    /// ztunnel is told of it: it may have been restarted as well. That may take its time, so
    /// what is open is closed before.
    async fn found_captured(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        found: Found,
    ) -> Result<(), EffectError> {
        let (uid, wanted) = (&facts.uid, self.options(&facts.uid));
        *held = Some(netns.clone());
        let applied = (found == Found::AsWanted).then(|| wanted.clone());
        self.becomes(uid, Outcome::FoundCaptured(applied));
        if let Some(pod) = self.table().get_mut(uid) {
            pod.ruled = Some(Instant::now());
        }
        if found == Found::Otherwise
            && let Action::Verify(options) = self.plan(uid)
        {
            match self.put_right(facts, &netns, &options).await {
                Ok(()) => self.becomes(uid, Outcome::FoundCaptured(Some(options))),
                Err(error) => tracing::debug!(%uid, %error, "not put right at the first look"),
            }
        }
        self.let_probes_through(uid, &wanted).await;
        let entered = self.inner.effects.enter(facts, &netns, &wanted);
        self.closed_while(uid, held, entered).await
    }

    /// Gives a pod its rules that is in the mesh, or was half-way out of it. What is in place
    /// stays in place when it fails.
    pub(super) async fn replace(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
    ) -> Result<(), EffectError> {
        let (uid, effects) = (&facts.uid, &self.inner.effects);
        let prepared = async {
            self.let_probes_through(uid, options).await;
            effects.serve(facts, &netns, options).await
        };
        self.closed_while(uid, held, prepared).await?;
        let overtaken = effects.apply_and_observe(uid, &netns, options).await?;
        self.overtaken(facts, Some(overtaken));
        self.replaced(facts, held, netns, options).await
    }

    /// Its rules are in place, which may be others than before, or none: what was direct
    /// under those is older than these.
    async fn replaced(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
    ) -> Result<(), EffectError> {
        let before = self.applied(&facts.uid);
        if before.as_ref() != Some(options) {
            self.inner.effects.rules.forget_lookups(&netns).await?;
        }
        match before {
            Some(before) if before != *options => {
                self.in_place(facts, held, netns, options);
                let (pod, uid) = (&facts.name, &facts.uid);
                tracing::info!(%pod, %uid, ?options, "options were changed");
                self.tell(facts, EventReason::OptionsApplied, "the pod's options count now".into());
                if captures_more(&before, options) {
                    self.age(uid, Opened::Before);
                }
            }
            Some(_) => self.captured(facts, held, netns, options),
            None => {
                self.captured(facts, held, netns, options);
                self.age(&facts.uid, Opened::Before);
            }
        }
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
        self.becomes(&facts.uid, Outcome::InPlace(options.clone()));
        if self.inner.effects.has_idle_name_server(&facts.uid, options)
            && let Some(pod) = self.table().get_mut(&facts.uid)
        {
            pod.due = true;
        }
    }

    async fn annotate(&self, uid: &PodUid, said: &Annotations) -> Result<(), EffectError> {
        let facts = self.facts(uid).ok_or(EffectError::NoFacts)?;
        // What was said before must not be heard after it.
        self.slot(uid).told().cancelled().await;
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
        self.becomes(uid, Outcome::Removed);
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
