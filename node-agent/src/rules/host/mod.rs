//! Probe traffic: what the host does so that pods tell the node's probes from all else.
//!
//! ```text
//! a pod is captured ─► exempt(uid, addresses, ports) ─► claims ─► keep: sets in the kernel
//! it is released    ─► release(uid) ─────────────────────┘         │ looked at every 3 s,
//!                                                                  └ repaired in place
//! ```
//!
//! The rules stay when the agent ends: probes go on. The next life takes over what it finds
//! and drops what no pod claims when all pods were looked at.

mod addresses;
mod answers;
mod cause;
mod claims;
mod keeper;
mod kernel;
mod links;
mod metrics;
mod self_test;
mod test_pod;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netns::PodNetns;
use tokio::sync::watch;

use super::{Rules, RulesError};
use crate::facts::PodUid;
use claims::Claims;
use kernel::Kernel;

pub use addresses::NodeAddresses;
pub use links::LinkError;
pub use metrics::Metrics;

/// How long a pod's start waits for its probes to be let through. After it, the pod starts
/// all the same: the kubelet probes again.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a pod tells the probes of its node from other traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeSource {
    /// By an address that the host gives to probes, and to nothing else.
    Marker,
    /// By any address of the node, which others may bear as well.
    NodeAddresses,
    /// Not at all: probes are plaintext like any other.
    Off,
}

impl ProbeSource {
    /// Reads the setting; `None` for what means nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "marker" => Some(Self::Marker),
            "node-addresses" => Some(Self::NodeAddresses),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// The host's probe rules. Clones are the same.
#[derive(Clone)]
pub struct HostProbes {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` leaves the host alone.
    kernel: Option<Kernel>,
    rules: Option<Rules>,
    metrics: Metrics,
    claims: Mutex<Claims>,
    /// Counts changes of the claims.
    wanted: watch::Sender<u64>,
    /// Up to which change the kernel was brought, or could not be.
    tried: watch::Sender<u64>,
    troubles: watch::Sender<Troubles>,
}

/// What is wrong, in words, by where it was noticed.
pub type Troubles = BTreeMap<&'static str, String>;

impl fmt::Debug for HostProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProbes").finish_non_exhaustive()
    }
}

impl HostProbes {
    /// Works on `host`, the network namespace of the node.
    #[must_use]
    pub fn new(rules: &Rules, host: PodNetns, metrics: Metrics) -> Self {
        let kernel = Kernel::new(rules.runner.clone(), host, rules.programs.nft.clone());
        Self::with(Some(kernel), Some(rules.clone()), metrics)
    }

    /// Leaves the host alone.
    #[must_use]
    pub fn off() -> Self {
        Self::with(None, None, Metrics::default())
    }

    fn with(kernel: Option<Kernel>, rules: Option<Rules>, metrics: Metrics) -> Self {
        let inner = Inner {
            kernel,
            rules,
            metrics,
            claims: Mutex::default(),
            wanted: watch::Sender::new(0),
            tried: watch::Sender::new(0),
            troubles: watch::Sender::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets the node's probes through to a pod that is captured. Returns when that is so in
    /// the kernel, or after a short while: trouble of the host is no trouble of the pod.
    pub async fn exempt(&self, uid: &PodUid, ips: &[IpAddr], ports: &BTreeSet<u16>) {
        if self.claims().knows(uid, ips, ports) {
            return;
        }
        let Some(version) = self.change(|claims| claims.claim(uid, ips, ports)) else {
            return;
        };
        let mut tried = self.inner.tried.subscribe();
        let reached = tried.wait_for(|tried| *tried >= version);
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            tracing::warn!(%uid, "the host lets no probes through to this pod yet");
        }
    }

    /// The pod is captured no more.
    pub fn release(&self, uid: &PodUid) {
        self.change(|claims| claims.release(uid));
    }

    /// Every pod that an earlier life of the agent had captured has spoken.
    pub fn all_known(&self) {
        self.change(Claims::disown);
    }

    /// What is wrong with probes on this node; empty when nothing is known to be.
    #[must_use]
    pub fn troubles(&self) -> watch::Receiver<Troubles> {
        self.inner.troubles.subscribe()
    }

    /// Whether anything of ours is on the host, whoever put it there.
    ///
    /// # Errors
    /// [`RulesError::Command`], [`RulesError::Listing`], [`RulesError::Link`].
    pub async fn present(&self) -> Result<bool, RulesError> {
        match &self.inner.kernel {
            Some(kernel) => Ok(kernel.listing().await? != capture::HostListing::default()
                || answers::present(kernel).await?),
            None => Ok(false),
        }
    }

    /// Takes everything of ours off the host, for an uninstall. Nothing there is fine.
    ///
    /// # Errors
    /// [`RulesError::Command`], [`RulesError::Link`].
    pub async fn remove(&self) -> Result<(), RulesError> {
        match &self.inner.kernel {
            Some(kernel) => {
                // The rules last: they drop what is sent to the routes' address.
                answers::remove(kernel).await?;
                kernel.remove().await
            }
            None => Ok(()),
        }
    }

    /// `None` when that changes nothing for the kernel.
    fn change(&self, change: impl FnOnce(&mut Claims)) -> Option<u64> {
        self.inner.kernel.as_ref()?;
        let mut claims = self.claims();
        let before = claims.wanted();
        change(&mut claims);
        if claims.wanted() == before {
            return None;
        }
        // Under the lock, so that a version is never older than what it stands for.
        self.inner.wanted.send_modify(|version| *version += 1);
        Some(*self.inner.wanted.borrow())
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Changes of claims are single steps: a panic leaves none half done.
        self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel exempts.
    #[cfg(test)]
    pub async fn in_kernel(&self) -> BTreeSet<capture::Exemption> {
        let kernel = self.inner.kernel.as_ref().expect("a host that is not left alone");
        kernel.listing().await.expect("a listing").exemptions()
    }

    fn trouble(&self, at: &'static str, trouble: Option<String>) {
        self.inner.troubles.send_if_modified(|troubles| {
            if troubles.get(at) == trouble.as_ref() {
                return false;
            }
            match trouble {
                Some(text) => troubles.insert(at, text),
                None => troubles.remove(at),
            };
            true
        });
    }
}

#[cfg(test)]
mod tests;
