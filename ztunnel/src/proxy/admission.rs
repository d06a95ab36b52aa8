//! What must be known before a connection is judged, and the judgement of those toward
//! the pod at their beginning. At changes of the view the roster judges them again.

use std::sync::Arc;

use mesh::{Decision, LocalWorkload, View, Workload};
use tokio::time::{Instant, timeout_at};

use super::KNOWLEDGE_WAIT;
use super::pod::PodShared;
use super::refusal::Refusal;

/// The pod's own workload, and the view it was found in.
pub(super) type Known = (Arc<View>, Arc<Workload>);

impl PodShared {
    /// Waits until the pod is known to a complete view.
    pub(super) async fn known(&self) -> Result<Known, Refusal> {
        self.settled(Ok).await
    }

    /// Waits until a connection toward this pod can be judged, and judges it.
    pub(super) async fn admit(&self, connection: &mesh::Connection) -> Result<Known, Refusal> {
        self.settled(|(view, workload)| match view.authorize(&workload, connection) {
            Decision::Allow => Ok((view, workload)),
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

    /// The pod in the latest view.
    pub(super) fn lookup(&self) -> Result<Known, Refusal> {
        let view = self.context.view.current().ok_or(Refusal::ViewIncomplete)?;
        let pod = LocalWorkload {
            name: &self.info.name,
            namespace: &self.info.namespace,
            service_account: self.lease.identity().service_account(),
        };
        let workload = view.local(pod).cloned().ok_or(Refusal::UnknownWorkload)?;
        Ok((view, workload))
    }
}
