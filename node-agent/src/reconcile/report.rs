//! Tells people what happened to a pod: log, Event, annotation.

use super::effects::EffectError;
use super::plan::Action;
use super::pod::{State, overtaken};
use super::run::Reconciler;
use crate::facts::{PodFacts, PodUid};
use crate::kube::EventReason;

impl Reconciler {
    pub(super) fn failed(&self, uid: &PodUid, action: &Action, error: &EffectError) {
        self.inner.metrics.failed(action);
        let text = error.to_string();
        let (facts, state, news) = self.change(|table| match table.get_mut(uid) {
            Some(pod) => {
                let news = pod.trouble.replace(text.clone()).as_ref() != Some(&text);
                (pod.facts.clone(), pod.state, news)
            }
            None => (None, State::Unknown, false),
        });
        let pod = facts.as_ref().map(|facts| facts.name.to_string());
        if !news {
            tracing::debug!(pod, %uid, step = action.name(), %error, "step failed again");
            return;
        }
        tracing::warn!(pod, %uid, step = action.name(), %error, "step failed, trying again");
        let Some(facts) = facts else { return };
        match action {
            Action::Look if matches!(error, EffectError::NotFound(_)) => {
                self.tell(&facts, EventReason::CaptureFailed, text);
            }
            Action::Capture(_) => self.tell(&facts, EventReason::CaptureFailed, text),
            Action::Verify(_) | Action::Repair(_) if state == State::Captured => {
                self.tell_repairing(&facts, &text);
            }
            _ => {}
        }
    }

    /// What a pod's annotations say that means nothing, once per change.
    pub(super) fn tell_mistakes(&self, uid: &PodUid) {
        let (mistakes, facts) = {
            let mut table = self.table();
            let mistakes = table.untold(uid, &self.settings());
            (mistakes, table.get(uid).and_then(|pod| pod.facts.clone()))
        };
        let Some(facts) = facts else { return };
        for mistake in mistakes {
            tracing::warn!(pod = %facts.name, %uid, %mistake, "option of the pod means nothing");
            self.tell(&facts, EventReason::BadOption, mistake.to_string());
        }
    }

    /// Policy rules of others come before ours, or no longer do. Each is told once.
    pub(super) fn overtaken(&self, facts: &PodFacts, found: Option<Vec<String>>) {
        let Some(found) = found else { return };
        let before = self.change(|table| {
            let pod = table.get_mut(&facts.uid)?;
            Some(std::mem::replace(&mut pod.overtaken, found.clone()))
        });
        let before = before.unwrap_or_default();
        let news: Vec<_> = found.into_iter().filter(|rule| !before.contains(rule)).collect();
        if news.is_empty() {
            return;
        }
        let text = overtaken(&news);
        tracing::warn!(pod = %facts.name, uid = %facts.uid, "{text}");
        let text = format!(
            "{text}: connections to the pod may fail, and what it answers may leave in clear \
             text. Whoever made it can give it a preference above {}",
            zds::ROUTE.preference
        );
        self.tell(facts, EventReason::ForeignPolicyRule, text);
    }

    pub(super) fn tell(&self, facts: &PodFacts, reason: EventReason, message: String) {
        self.inner.effects.api.tell(facts, reason, message);
    }

    /// The pod stays captured; what it says to peers is not touched, for this may be written
    /// after a release has begun. People learn what is wrong.
    pub(super) fn tell_repairing(&self, facts: &PodFacts, reason: &str) {
        let text = format!("repairing: {reason}");
        // Believed at once, so that "captured" is written again when it is.
        self.change(|table| {
            if let Some(facts) = table.get_mut(&facts.uid).and_then(|pod| pod.facts.as_mut()) {
                facts.annotations.observed = Some(text.clone());
            }
        });
        let (before, done) = self.slot(&facts.uid).tell_next();
        let (this, facts) = (self.clone(), facts.clone());
        self.inner.tasks.spawn(async move {
            let _done = done.drop_guard();
            let write = async {
                before.cancelled().await;
                this.inner.effects.api.observed(&facts, &text).await
            };
            let written = tokio::select! {
                () = this.inner.stop.cancelled() => return,
                written = write => written,
            };
            if let Err(error) = written {
                tracing::debug!(pod = %facts.name, %error, "repair is not written on the pod");
            }
        });
    }
}
