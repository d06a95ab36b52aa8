//! All addresses of the node: the other way to tell its probes.
//!
//! Nothing is done on the host then. The price: a client outside that comes in by a NodePort
//! and is hidden behind an address of the node passes for a probe, at probe ports.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use netns::PodNetns;
use tokio_util::sync::CancellationToken;

use super::links::{LinkError, Links};
use crate::rules::Rules;

/// How soon a new address counts. The first pod of a node often brings one along.
const LOOK: Duration = Duration::from_secs(1);

/// The addresses of the node.
pub struct NodeAddresses {
    links: Links,
}

impl fmt::Debug for NodeAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAddresses").finish_non_exhaustive()
    }
}

impl NodeAddresses {
    /// Looks into `node`, the network namespace of the node.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open(rules: &Rules, node: &PodNetns) -> Result<Self, LinkError> {
        Ok(Self { links: Links::open(&rules.runner, node).await? })
    }

    /// Those that pods may see as a source.
    ///
    /// # Errors
    /// [`LinkError::Netlink`].
    pub async fn read(&self) -> Result<BTreeSet<IpAddr>, LinkError> {
        self.links.addresses().await
    }

    /// Tells every change until `stop`.
    pub async fn follow(
        self,
        mut known: BTreeSet<IpAddr>,
        tell: impl Fn(&BTreeSet<IpAddr>),
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.read().await {
                Ok(now) if now != known => {
                    tracing::info!(?now, "the node's addresses, by which probes are told");
                    tell(&now);
                    known = now;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the node's addresses are not known now"),
            }
        }
    }
}
