//! CHECK and DEL of one pod, and an ADD whose answer nobody took.

use std::net::IpAddr;
use std::time::Duration;

use netns::PodNetns;

use super::collect::LetGoError;
use super::pod::State;
use super::run::Reconciler;
use crate::enrollment::{Enrollment, Reason};
use crate::facts::{PodName, PodUid};
use crate::pod_netns::same;
use crate::rules::Drift;
use crate::ztunnel_link::Ack;

/// How long DEL waits for the pod's turn. What is not done by then is done afterwards.
const DEL_PATIENCE: Duration = Duration::from_millis(800);

/// What CHECK found.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// As ADD left it.
    Captured,
    /// It does not belong to the mesh (any more).
    NotInMesh(Reason),
}

/// Why CHECK fails.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The sandbox is unknown.
    #[error("the node agent knows no sandbox of pod {0}: it started outside the agent's sight")]
    UnknownSandbox(PodName),
    /// The descriptor is another namespace's.
    #[error("the runtime names another network namespace than the one that was captured")]
    OtherNetns,
    /// It should be captured, but is not.
    #[error("pod {pod} is not captured: {reason}")]
    NotCaptured {
        /// Which pod.
        pod: PodName,
        /// In what way.
        reason: String,
    },
}

impl Reconciler {
    /// The reply did not reach the plugin: the runtime takes ADD for failed.
    pub async fn abandon(&self, container_id: &str, ifname: &str, netns: &PodNetns) {
        let record = self.inner.effects.store.find(container_id, ifname).await;
        let Some(uid) = record.map(|record| record.uid) else {
            return;
        };
        let slot = self.slot(&uid);
        let mut held = slot.held.lock().await;
        // It may have ended while its turn was waited for, and the pod have another sandbox.
        if self.inner.effects.store.find(container_id, ifname).await.is_none() {
            return;
        }
        self.inner.effects.undo(&uid, netns).await;
        *held = None;
        self.detach(&uid, container_id).await;
        drop(held);
        self.wake(&uid);
    }

    /// DEL: never fails, never waits long. What takes longer is done afterwards.
    pub async fn delete(&self, container_id: &str, ifname: &str) {
        let Some(record) = self.inner.effects.store.find(container_id, ifname).await else {
            return;
        };
        let pod = record.name.clone();
        match self.let_go(record, DEL_PATIENCE).await {
            Ok(()) => {}
            Err(error @ LetGoError::Underway { .. }) => {
                tracing::info!(%pod, %container_id, %error, "DEL is answered all the same");
            }
            Err(error) => {
                tracing::warn!(%pod, %container_id, %error, "record of an ended pod stays");
            }
        }
    }

    /// CHECK: everything that makes a captured pod, read from its kernel. `ips` are the
    /// addresses that the runtime believes in.
    ///
    /// # Errors
    /// Any [`CheckError`].
    pub async fn check(
        &self,
        name: &PodName,
        container_id: &str,
        netns: &PodNetns,
        ips: &[IpAddr],
    ) -> Result<Checked, CheckError> {
        // A further interface has no record of its own: a pod is captured as a whole.
        let record = self.inner.effects.store.of_sandbox(container_id).await;
        let record = record.ok_or_else(|| CheckError::UnknownSandbox(name.clone()))?;
        if !same(record.netns.id(), netns.id()) {
            return Err(CheckError::OtherNetns);
        }
        let uid = record.uid;
        let slot = self.slot(&uid);
        let _turn = slot.held.lock().await;
        let wanted = self.table().wanted(&uid, &self.settings());
        let pod = self.table().get(&uid).map(|pod| (pod.state, pod.applied.clone()));
        let not_captured = |reason: String| CheckError::NotCaptured { pod: name.clone(), reason };
        let options = match (pod, wanted) {
            (Some((State::Captured, Some(options))), _) => options,
            (_, Some(Enrollment::Skip(reason))) => return Ok(Checked::NotInMesh(reason)),
            (Some((state, _)), _) => {
                return Err(not_captured(format!("its state is {}", state.name())));
            }
            (None, _) => return Err(CheckError::UnknownSandbox(name.clone())),
        };
        match self.inner.effects.link.ack(&uid) {
            Ack::Serving => {}
            Ack::Refused(error) => return Err(not_captured(format!("ztunnel refuses: {error}"))),
            Ack::Unknown => {
                return Err(not_captured("no connected ztunnel has said that it serves".into()));
            }
        }
        let effects = &self.inner.effects;
        let there = effects.locator.check(netns, ips).await;
        there.map_err(|error| not_captured(error.to_string()))?;
        let drifts = effects.rules.verify(netns, &options).await;
        let mut drifts = drifts.map_err(|error| not_captured(error.to_string()))?;
        drifts.extend(effects.closed(&uid).iter().map(|held| Drift::Listener(held.at())));
        if drifts.is_empty() {
            return Ok(Checked::Captured);
        }
        self.wake_due(&uid);
        Err(not_captured(crate::rules::list(&drifts)))
    }

    /// What CHECK has found is repaired without waiting for the timer.
    fn wake_due(&self, uid: &PodUid) {
        if let Some(pod) = self.table().get_mut(uid) {
            pod.due = true;
        }
        self.wake(uid);
    }
}
