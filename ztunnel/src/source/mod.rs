//! Where the view of the mesh comes from, and how the rest of ztunnel reads it.
//!
//! ```text
//! control plane ──delta xDS──► session ──bytes──► apply: state (pure) ──view──► ViewWriter
//!                                 ▲  ▲                     │                     │ swap
//!                                 │  └──── ACK / NACK ◄────┘                ViewHandle ► proxy
//!                                 └─ names ── demand ◄──────────── lookup ───────┘
//! file ──YAML──► local ──view, once──► ViewWriter
//! ```
//!
//! A view is published only when it is complete: before that, nobody may decide anything
//! from it, because a destination missing from half a view would be taken for one outside
//! the mesh.

mod apply;
mod demand;
mod error;
pub mod local;
mod metrics;
mod node;
mod session;
pub mod state;
#[cfg(test)]
mod test_control;
pub mod wire;
mod xds;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::try_join_all;
use mesh::{GatewayDestination, Network, View};
use tokio::sync::watch;

use demand::{Demand, address_name};

pub use demand::{LOOKUP_PATIENCE, LookupError};
pub use error::StreamError;
pub use metrics::Metrics;
pub use node::NodeInfo;
pub use session::Caller;
pub use state::{MassRemoval, Rules, Scope};
pub use xds::{Audience, XdsClient};

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
    /// Where the view has only what was asked for: what that is.
    demand: Option<Demand>,
}

/// Both ends, before anything is known.
#[must_use]
pub fn channel() -> (ViewWriter, ViewHandle) {
    both_ends(None)
}

/// Both ends of a view that has only what was asked for. Our pods are those of `cluster`.
#[must_use]
pub fn channel_on_demand(cluster: &str) -> (ViewWriter, ViewHandle) {
    both_ends(Some(Demand::new(cluster)))
}

fn both_ends(demand: Option<Demand>) -> (ViewWriter, ViewHandle) {
    let (view, changes) = (ArcSwapOption::empty(), watch::Sender::new(0));
    let shared = Arc::new(Shared { view, changes, demand });
    (ViewWriter { shared: Arc::clone(&shared) }, ViewHandle { shared })
}

impl ViewWriter {
    /// Replaces the view that readers see.
    pub fn publish(&self, view: View) {
        drop(self.replace(view));
    }

    /// Does the same and returns the former view. Readers may still hold it.
    pub(crate) fn replace(&self, view: View) -> Option<Arc<View>> {
        let former = self.shared.view.swap(Some(Arc::new(view)));
        self.shared.changes.send_modify(|count| *count += 1);
        former
    }

    fn demand(&self) -> Option<&Demand> {
        self.shared.demand.as_ref()
    }

    fn reader(&self) -> ViewHandle {
        ViewHandle { shared: Arc::clone(&self.shared) }
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

    /// Returns when the view says what is at `ip`, even if that is nothing: look at
    /// [`ViewHandle::current`] after it. At once where the view has everything.
    ///
    /// # Errors
    /// [`LookupError`]: nothing is known, which is not the same as a destination outside
    /// of the mesh. Do not pass it through.
    pub async fn lookup_address(&self, network: &Network, ip: IpAddr) -> Result<(), LookupError> {
        match self.demand() {
            Some(demand) => demand.lookup(address_name(network, ip)).await,
            None => Ok(()),
        }
    }

    /// The same for the uid of a workload, or `namespace/hostname` of a service.
    ///
    /// # Errors
    /// As [`ViewHandle::lookup_address`].
    pub async fn lookup_name(&self, name: &str) -> Result<(), LookupError> {
        match self.demand() {
            Some(demand) => demand.lookup(name.to_owned()).await,
            None => Ok(()),
        }
    }

    /// Has the workload asked for that a pod of this node is, and goes on to while the
    /// guard lives: who serves a pod must hear of every change. Does not wait for it.
    #[must_use]
    pub fn keep_pod(&self, namespace: &str, name: &str) -> KeptPod {
        let uid = self.demand().map(|demand| demand.keep_pod(namespace, name));
        KeptPod { view: self.clone(), uid }
    }

    /// The same for the machine that we run on. Asked again now and then, it stays known.
    pub fn ask_for_machine(&self, namespace: &str, name: &str) {
        if let Some(demand) = self.demand() {
            demand.ask_for_machine(namespace, name);
        }
    }

    /// Looks up everything that routing a connection to `ip` needs: what is there, and the
    /// waypoints and gateways on the way. `namespace` is the client's.
    ///
    /// # Errors
    /// As [`ViewHandle::lookup_address`].
    pub async fn prepare(
        &self,
        namespace: &str,
        network: &Network,
        ip: IpAddr,
    ) -> Result<(), LookupError> {
        if self.demand().is_none() {
            return Ok(());
        }
        self.lookup_address(network, ip).await?;
        // A view that is not complete is not to be seen, so it cannot say what is on the
        // way. Without one the connection is refused, whatever was asked for.
        let Some(view) = self.complete(LOOKUP_PATIENCE).await else { return Ok(()) };
        let stops = stops(&view, namespace, network, ip);
        try_join_all(stops.iter().map(|stop| self.lookup_stop(stop))).await.map(drop)
    }

    async fn lookup_stop(&self, stop: &GatewayDestination) -> Result<(), LookupError> {
        match stop {
            GatewayDestination::Hostname(key) => self.lookup_name(&key.to_string()).await,
            GatewayDestination::Address { network, ip } => self.lookup_address(network, *ip).await,
        }
    }

    fn demand(&self) -> Option<&Demand> {
        self.shared.demand.as_ref()
    }

    /// Tells of every publication from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// A pod that the view keeps up with, see [`ViewHandle::keep_pod`].
#[derive(Debug)]
pub struct KeptPod {
    view: ViewHandle,
    /// None where the view has everything.
    uid: Option<Arc<str>>,
}

impl Drop for KeptPod {
    fn drop(&mut self) {
        if let (Some(demand), Some(uid)) = (self.view.demand(), &self.uid) {
            demand.let_go(uid);
        }
    }
}

/// Where traffic to `ip` may have to go first.
fn stops(
    view: &View,
    namespace: &str,
    network: &Network,
    ip: IpAddr,
) -> HashSet<GatewayDestination> {
    let service = view.service_at(namespace, network, ip);
    let endpoints = service.into_iter().flat_map(|service| view.endpoints(&service.key));
    let workloads = endpoints.chain(view.by_address(network, ip));
    let of_workloads = workloads
        .flat_map(|it| it.waypoint.as_deref().into_iter().chain(it.network_gateway.as_deref()));
    let of_service = service.into_iter().flat_map(|service| {
        let weighted = service.weighted_waypoints.iter().map(|(gateway, _)| gateway);
        service.waypoint.as_ref().into_iter().chain(weighted)
    });
    of_workloads.chain(of_service).map(|gateway| gateway.destination.clone()).collect()
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
