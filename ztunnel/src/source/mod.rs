//! Where the view of the mesh comes from, and how the rest of ztunnel reads it.
//!
//! ```text
//! control plane ──delta xDS──► xds (stream) ──response──► state (pure) ──view──► ViewWriter
//!                                   ▲                        │                     │ swap
//!                                   └────── ACK / NACK ◄─────┘                ViewHandle ► proxy
//! ```
//!
//! A view is published only when it is complete: before that, nobody may decide anything
//! from it, because a destination missing from half a view would be taken for one outside
//! the mesh.

mod error;
mod metrics;
mod node;
mod state;
mod xds;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mesh::View;
use tokio::sync::watch;

pub use error::StreamError;
pub use metrics::Metrics;
pub use node::NodeInfo;
pub use xds::{Caller, XdsClient};

/// The reading end: the latest complete view.
#[derive(Clone, Debug)]
pub struct ViewHandle {
    shared: Arc<Shared>,
}

/// The writing end; there is one.
#[derive(Debug)]
pub struct ViewWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: ArcSwapOption<View>,
    /// Counts publications.
    changes: watch::Sender<u64>,
}

/// Both ends, before anything is known.
#[must_use]
pub fn channel() -> (ViewWriter, ViewHandle) {
    let shared = Arc::new(Shared { view: ArcSwapOption::empty(), changes: watch::Sender::new(0) });
    (ViewWriter { shared: Arc::clone(&shared) }, ViewHandle { shared })
}

impl ViewWriter {
    /// Replaces the view that readers see.
    pub fn publish(&self, view: View) {
        self.shared.view.store(Some(Arc::new(view)));
        self.shared.changes.send_modify(|count| *count += 1);
    }
}

impl ViewHandle {
    /// A handle of a view that never changes.
    #[must_use]
    pub fn fixed(view: View) -> Self {
        let (writer, handle) = channel();
        writer.publish(view);
        handle
    }

    /// The latest view; `None` until it was complete for the first time since this
    /// process started.
    #[must_use]
    pub fn current(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// The latest view, waited for at most `wait` while there is none yet.
    pub async fn complete(&self, wait: Duration) -> Option<Arc<View>> {
        if let Some(view) = self.current() {
            return Some(view);
        }
        let mut changes = self.shared.changes.subscribe();
        // The sender lives in `self`, so the wait ends by a view or by the deadline.
        let _ = tokio::time::timeout(wait, changes.wait_for(|count| *count > 0)).await;
        self.current()
    }

    /// Tells of every publication from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_sees_a_view_before_it_is_complete() {
        let (writer, handle) = channel();
        assert!(handle.current().is_none());
        assert!(handle.complete(Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.complete(Duration::from_secs(5)).await }
        });
        writer.publish(View::default());
        assert!(waiting.await.unwrap().is_some());
        assert!(handle.current().is_some());
    }

    #[tokio::test]
    async fn changes_tell_of_later_publications_only() {
        let (writer, handle) = channel();
        writer.publish(View::default());
        let mut changes = handle.changes();
        assert!(!changes.has_changed().unwrap());
        writer.publish(View::default());
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 2);
    }
}
