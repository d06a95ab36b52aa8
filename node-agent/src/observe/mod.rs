//! What the kernel says about captured pods, at all times:
//!
//! ```text
//! pod: ruleset, policy rule, route, IPv6 switch
//!   │ news (two netlink sockets that live in the pod)     every few seconds
//!   ▼                                                            │
//! the pod's task wakes ──► light look: generation, where packets would go
//!                              │ the same as when last compared: done
//!                              └ anything else, or long ago: full comparison (`rules`)
//! ```
//!
//! A light look costs some ten system calls. Whatever it sees is compared with what was seen
//! *before* the last full comparison that found nothing wrong, so a change that comes
//! while the comparison runs is found by the next look.

mod message;
mod socket;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netns::{Fence, FenceError, PodNetns};

pub use message::Author;
pub use watch::{Sight, Watch};

use crate::facts::PodUid;
use crate::pod_netns::same;

/// Why a pod's kernel cannot be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Its namespace cannot be entered.
    #[error("open netlink sockets in the pod: {0}")]
    Fence(#[from] FenceError),
    /// A socket does not work.
    #[error("talk to the kernel about the pod by netlink: {0}")]
    Socket(#[source] std::io::Error),
    /// There was no room for the answer.
    #[error("the kernel's answer about the pod was lost among its news")]
    NoAnswer,
}

/// The watches over captured pods.
#[derive(Clone, Debug)]
pub struct Observer {
    fence: Fence,
    watches: Arc<Mutex<HashMap<PodUid, Arc<Watch>>>>,
}

impl Observer {
    /// Uses these fence workers.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self { fence, watches: Arc::default() }
    }

    /// The watch over a pod; opened when there is none in this namespace.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn watch(&self, uid: &PodUid, netns: &PodNetns) -> Result<Arc<Watch>, ObserveError> {
        if let Some(watch) = self.known(uid).filter(|watch| same(watch.id(), netns.id())) {
            return Ok(watch);
        }
        let watch = Arc::new(Watch::open(&self.fence, netns).await?);
        self.lock().insert(uid.clone(), Arc::clone(&watch));
        Ok(watch)
    }

    /// The watch over a pod, if there is one.
    #[must_use]
    pub fn known(&self, uid: &PodUid) -> Option<Arc<Watch>> {
        self.lock().get(uid).cloned()
    }

    /// Lets go of a pod.
    pub fn forget(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    /// Until the kernel has news about a pod; never for one without a watch.
    pub async fn noticed(&self, uid: &PodUid) {
        let Some(watch) = self.known(uid) else { return std::future::pending().await };
        if let Err(error) = watch.noticed().await {
            tracing::warn!(%uid, %error, "news about a pod are not heard, it is looked at in turns");
            std::future::pending::<()>().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<Watch>>> {
        // Nothing under this lock can panic half-way through a change.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
