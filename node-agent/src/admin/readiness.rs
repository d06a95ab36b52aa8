//! What the agent still waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Something without which the agent is not ready: able to let a pod in now. An API server
/// that goes away later does not make it unready: pods are served as before, what is known
/// stays known, and another agent would know less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The run directory's lock: no other agent acts on this node.
    Lock,
    /// The first lists of pods and namespaces.
    Kube,
    /// A connected ztunnel that has the whole picture.
    Ztunnel,
    /// The plugin's socket.
    PluginSocket,
    /// Program and configuration of the plugin, where they are our business: before, pods of
    /// the mesh start uncaptured.
    Installed,
}

impl Condition {
    const ALL: [Self; 5] =
        [Self::Lock, Self::Kube, Self::Ztunnel, Self::PluginSocket, Self::Installed];

    fn text(self) -> &'static str {
        match self {
            Self::Lock => "the lock of the run directory: another node agent acts on this node",
            Self::Kube => "the first lists of pods and namespaces from the Kubernetes API",
            Self::Ztunnel => "a ztunnel to connect and take the snapshot",
            Self::PluginSocket => "the plugin's socket",
            Self::Installed => "the plugin to stand in the container runtime's configuration",
        }
    }
}

/// Shared by those who fulfil conditions and those who ask. Waits for everything at first.
#[derive(Clone, Debug)]
pub struct Readiness {
    missing: Arc<watch::Sender<BTreeSet<Condition>>>,
    remarks: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        let missing = Arc::new(watch::Sender::new(Condition::ALL.into()));
        Self { missing, remarks: Arc::default() }
    }
}

impl Readiness {
    /// The condition is fulfilled.
    pub fn fulfil(&self, condition: Condition) {
        self.missing.send_if_modified(|missing| missing.remove(&condition));
    }

    /// It is not, or not any more.
    pub fn miss(&self, condition: Condition) {
        self.missing.send_if_modified(|missing| missing.insert(condition));
    }

    /// What is missing, in words. Empty means ready.
    #[must_use]
    pub fn waits_for(&self) -> Vec<&'static str> {
        self.missing.borrow().iter().map(|condition| condition.text()).collect()
    }

    /// Until nothing is missing, for the first time or again.
    pub async fn ready(&self) {
        // The sender is ours and lives as long.
        drop(self.missing.subscribe().wait_for(BTreeSet::is_empty).await);
    }

    /// Until something else is missing than this, which [`Readiness::waits_for`] has told.
    pub async fn differs_from(&self, known: &[&'static str]) {
        let differs = |missing: &BTreeSet<Condition>| {
            !missing.iter().map(|condition| condition.text()).eq(known.iter().copied())
        };
        // The sender is ours and lives as long.
        drop(self.missing.subscribe().wait_for(differs).await);
    }

    /// Something is wrong that does not keep the agent from its work; nothing when `text` is
    /// empty.
    pub fn remark(&self, about: &'static str, text: &str) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.remove(about);
        if !text.is_empty() {
            remarks.insert(about, text.to_owned());
        }
    }

    /// What is wrong, one line for each part that has a remark.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.iter().map(|(about, text)| format!("{about}: {text}")).collect()
    }
}
