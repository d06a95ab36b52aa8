//! What must be known before a connection is judged, and the judgement of those toward
//! the pod at their beginning. At changes of the view the roster judges them again.

use std::sync::Arc;

use mesh::{Decision, LocalWorkload, View, Workload};
use netns::OrigDst;
use tokio::time::{Instant, timeout_at};

use super::KNOWLEDGE_WAIT;
use super::pod::PodShared;
use super::refusal::Refusal;

/// The pod's own workload, and the view it was found in.
pub(super) type Known = (Arc<View>, Arc<Workload>);

impl PodShared {
    /// Waits until the pod and what is at `dst` are known to a complete view.
    pub(super) async fn known_toward(&self, dst: OrigDst) -> Result<Known, Refusal> {
        let (view, network) = (&self.context.view, &self.context.settings.network);
        view.prepare(&self.info.namespace, network, dst.0.ip()).await?;
        self.settled(Ok).await
    }

    /// The pod, waited for while it is not known.
    pub(super) async fn known(&self) -> Result<Known, Refusal> {
        match self.lookup() {
            Err(refusal) if refusal.may_pass() => self.settled(Ok).await,
            answer => answer,
        }
    }

    /// Waits until a connection toward this pod can be judged, and judges it. The first
    /// judgement is told to those who watch policies.
    pub(super) async fn admit(&self, connection: &mesh::Connection) -> Result<Known, Refusal> {
        let judged = self.judge(connection).await;
        let (known, decision) = match &judged {
            Ok(known) => (Some(known.clone()), Decision::Allow),
            Err(Refusal::Denied(denial)) => (self.lookup().ok(), Decision::Deny(denial.clone())),
            Err(_) => return judged,
        };
        if let Some((view, workload)) = known {
            self.context.telemetry.judged(&view, &workload, connection, &decision);
        }
        judged
    }

    async fn judge(&self, connection: &mesh::Connection) -> Result<Known, Refusal> {
        let unknown = self.context.settings.unknown_policy;
        let decide = |known: &Known| known.0.authorize_with(unknown, &known.1, connection);
        self.settled(|known| match decide(&known) {
            Decision::Allow => Ok(known),
            Decision::Deny(denial) => Err(Refusal::Denied(denial)),
        })
        .await
    }

    /// Asks `judge` about each new view, until its answer does not wait for knowledge.
    async fn settled(
        &self,
        judge: impl Fn(Known) -> Result<Known, Refusal>,
    ) -> Result<Known, Refusal> {
        let deadline = Instant::now() + KNOWLEDGE_WAIT;
        let mut changes = self.context.view.changes();
        loop {
            let answer = self.lookup().and_then(&judge);
            match answer {
                Err(refusal) if refusal.may_pass() => {
                    match timeout_at(deadline, changes.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) => return Err(refusal),
                    }
                }
                answer => return answer,
            }
        }
    }

    /// The pod, if it was found to be meant and its policies refused. For those who watch.
    pub(super) fn judged(&self, refusal: &Refusal) -> Option<Known> {
        matches!(refusal, Refusal::Denied(_)).then(|| self.lookup().ok()).flatten()
    }

    /// The pod in the latest view.
    pub(super) fn lookup(&self) -> Result<Known, Refusal> {
        let view = self.context.view.current().ok_or(Refusal::ViewIncomplete)?;
        let pod = LocalWorkload {
            name: &self.info.name,
            namespace: &self.info.namespace,
            service_account: &self.info.service_account,
        };
        let home = &self.context.settings.home;
        let workload = view.local(pod, home).cloned().ok_or(Refusal::UnknownWorkload)?;
        Ok((view, workload))
    }
}
