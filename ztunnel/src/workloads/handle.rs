//! What others need to know of the manager: its settings and how to ask it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use zds::WorkloadInfo;

use super::event::PodState;
use crate::proxy::Connections;

/// Who opens the pods' listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The agent where it can: they outlive this process, so that connections wait for the
    /// next one. Otherwise we do.
    Agent,
    /// We do, whatever the agent can: everything is as in version 1 of the protocol.
    Own,
}

/// How the session is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Who opens listeners.
    pub handover: Handover,
    /// How long a pod may take to start. Less than the 5 s that agents wait for an
    /// answer, so that the agent hears the reason instead of losing the connection.
    pub start_deadline: Duration,
    /// How often pending pods are tried again.
    pub retry_every: Duration,
}

impl Settings {
    /// Istio's times, for an agent at `socket`.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            handover: Handover::Agent,
            start_deadline: Duration::from_secs(4),
            retry_every: Duration::from_secs(5),
        }
    }
}

/// What is known of each pod, by its UID.
pub type Pods = BTreeMap<String, (WorkloadInfo, PodState, Connections)>;

/// Asks a running [`super::Manager`].
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) questions: mpsc::Sender<oneshot::Sender<Pods>>,
}

impl Handle {
    /// A handle of nothing.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn ended() -> Self {
        Self { questions: mpsc::channel(1).0 }
    }

    /// Every pod with its state; `None` when the manager has ended.
    pub async fn pods(&self) -> Option<Pods> {
        let (answer, pods) = oneshot::channel();
        self.questions.send(answer).await.ok()?;
        pods.await.ok()
    }
}
