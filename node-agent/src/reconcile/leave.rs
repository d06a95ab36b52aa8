//! The way out of the mesh: the steps that touch the pod, and keeping up what they leave.

use std::collections::BTreeSet;

use capture::Options;
use netns::PodNetns;
use tokio::time::Instant;

use super::effects::EffectError;
use super::flaps::{Harm, Tell};
use super::pod::{Outcome, State};
use super::run::Reconciler;
use crate::facts::PodUid;
use crate::kube::EventReason;
use crate::rules::Kind;

impl Reconciler {
    /// New connections are direct from now on, those of before stay proxied; or still do,
    /// where somebody has changed the rules for that.
    pub(super) async fn drain(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
        options: &Options,
    ) -> Result<(), EffectError> {
        let netns = self.netns(uid, held).await?;
        if self.state(uid).drains() {
            return self.drain_again(uid, &netns, options).await;
        }
        self.inner.effects.drain(uid, &netns, options).await?;
        self.becomes(uid, Outcome::Draining);
        Ok(())
    }

    async fn drain_again(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        // News of other things, of the pod's facts for example, have it looked at as well.
        if self.glance(uid).is_some() {
            let began = Instant::now();
            let tell = self.slot(uid).flaps().repair(Harm::Opens, began);
            self.inner.effects.drain_again(uid, netns, options).await?;
            self.inner.metrics.repaired(&BTreeSet::from([Kind::Rules]), began.elapsed());
            self.drained_again(uid, tell);
        }
        self.becomes(uid, Outcome::PutRight(options.clone()));
        Ok(())
    }

    fn drained_again(&self, uid: &PodUid, tell: Tell) {
        let Some(facts) = self.facts(uid).filter(|_| tell != Tell::Nothing) else { return };
        let text = "the rules that keep the pod's last connections proxied while it leaves the \
                    mesh were changed by somebody else, and are restored";
        tracing::warn!(pod = %facts.name, %uid, "{text}");
        let reason = match tell {
            Tell::Flapping(_) => EventReason::Flapping,
            Tell::Repair | Tell::Nothing => EventReason::Drifted,
        };
        self.tell(&facts, reason, text.into());
    }

    /// ztunnel lets go of the pod, what is left is ended, and nothing of ours stays.
    pub(super) async fn remove(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<(), EffectError> {
        let netns = self.netns(uid, held).await?;
        let effects = &self.inner.effects;
        // It closes its ends by itself, and may take its time.
        self.closed_while(uid, held, effects.link.del(uid)).await?;
        effects.remove(uid, &netns).await?;
        *held = None;
        self.becomes(uid, Outcome::Removed);
        if let Some(facts) = self.facts(uid) {
            tracing::info!(pod = %facts.name, %uid, "released");
            self.tell(&facts, EventReason::Released, "traffic is direct again".into());
        }
        Ok(())
    }

    /// What cannot be put right in a pod half-way out does not keep it from leaving: the next
    /// step has its turn before it is tried again.
    pub(super) fn leave_all_the_same(&self, uid: &PodUid) {
        let stays = self.is_wanted(uid);
        if let Some(pod) = self.table().get_mut(uid)
            && !(stays && pod.state == State::Captured)
        {
            pod.due = false;
        }
    }
}
