//! An embedded Kubernetes API over plain HTTP, in memory, for the lab: what our own parts and
//! `kubectl` ask of it, and no more. What it does not do it refuses (405, 501) with a `Status`
//! that says so.
//!
//! The way of a request: `server` takes the connection; `request` makes a typed request
//! (`action`) of path, query and headers; `handler` reads the body and takes the lock;
//! `perform` has `writes`, `patching`, `deletes` or `reads` work on the `store`; `render` gives
//! the result its form. `stream` is the body of a watch. What exists is in one table,
//! `resource`, a row for each of `kinds`.
//!
//! There is no authentication and no authorization: whoever can reach a listener may do
//! everything. It belongs on loopback and inside the lab's own namespaces.
//!
//! As in a cluster: services get addresses, and the pods that they select are written into
//! their slices (`endpoints`); a pod needs its service account, status is written through `/status` only,
//! and a pod with a node that is deleted stays, marked, until it is deleted again with a grace
//! period of 0 by whoever plays the kubelet.

mod action;
mod apply;
mod body;
mod checks;
mod deletes;
mod discovery;
mod endpoints;
mod entropy;
mod fields;
mod handler;
mod kinds;
mod meta;
mod names;
mod negotiate;
mod options;
mod patch;
mod patching;
mod perform;
mod protobuf;
mod query;
mod reads;
mod render;
mod request;
mod resource;
mod schema;
mod selector;
mod server;
mod shape;
mod status;
mod store;
mod strategic;
mod stream;
mod table;
mod token;
mod token_request;
mod watch;
mod writes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use entropy::Entropy;
use handler::Shared;

use crate::net::plan;
use crate::options::Family;

/// Why the API did not start.
#[derive(Debug, thiserror::Error)]
pub enum KubeApiError {
    /// A listener that was passed in cannot be used.
    #[error("the listener {address} cannot be used: {source}")]
    Listener {
        /// Its address, or `unknown` where even that cannot be found out.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's source of random bytes, for uids and tokens, cannot be opened.
    #[error("/dev/urandom cannot be opened: {0}")]
    Entropy(#[source] io::Error),
    /// The namespaces every cluster has could not be created.
    #[error("the first namespaces were not created: {0}")]
    Furnish(String),
}

/// How much the API keeps, how long it waits, and what services get.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many changes are kept for watches; one that falls further behind gets 410.
    pub history: usize,
    /// The largest request body, in bytes.
    pub body: usize,
    /// How many connections are open at once; more wait in the listeners' queues.
    pub connections: usize,
    /// How long a body may take to come.
    pub read_deadline: Duration,
    /// How long a connection may wait for its next request, headers included.
    pub idle_deadline: Duration,
    /// How often a watch that wants bookmarks gets one.
    pub bookmark_interval: Duration,
    /// Of which services get their addresses: a range per family, the preferred one first.
    pub service_ranges: Vec<IpNetwork>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history: 4096,
            // What the API server of a cluster allows.
            body: 3 * 1024 * 1024,
            connections: 1024,
            read_deadline: Duration::from_secs(30),
            // Longer than the 90 s for which the usual clients keep an idle connection, so that
            // none is closed in the moment it is used again.
            idle_deadline: Duration::from_secs(120),
            bookmark_interval: Duration::from_secs(60),
            service_ranges: plan::services(Family::V4),
        }
    }
}

/// A running API. Dropping it ends it at once; [`KubeApi::shutdown`] ends it in order.
#[derive(Debug)]
pub struct KubeApi {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    listeners: JoinSet<()>,
}

impl KubeApi {
    /// Serves one set of objects on all these listeners, which may be of any namespace.
    ///
    /// # Errors
    /// When a listener cannot be used or the kernel gives no random bytes.
    pub async fn start(listeners: Vec<TcpListener>) -> Result<KubeApi, KubeApiError> {
        KubeApi::start_with(listeners, Limits::default()).await
    }

    /// As [`KubeApi::start`], with other limits.
    ///
    /// # Errors
    /// As for [`KubeApi::start`].
    pub async fn start_with(
        listeners: Vec<TcpListener>,
        limits: Limits,
    ) -> Result<KubeApi, KubeApiError> {
        let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let entropy = Entropy::open().map_err(KubeApiError::Entropy)?;
        let shared = Shared::new(limits, entropy)
            .map_err(|refusal| KubeApiError::Furnish(refusal.to_string()))?;
        let shared = Arc::new(shared);
        let (mut addresses, mut tasks) = (Vec::new(), JoinSet::new());
        for listener in listeners {
            let (address, listener) = adopt(listener)?;
            addresses.push(address);
            tasks.spawn(server::serve(listener, Arc::clone(&shared), Arc::clone(&slots)));
        }
        tracing::info!(?addresses, "the Kubernetes API of the lab is up");
        Ok(KubeApi { addresses, stop: shared.stop.clone(), listeners: tasks })
    }

    /// Where it listens, in the order of the listeners passed in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Ends watches and connections and returns when the last has ended.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.listeners.join_next().await.is_some() {}
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn adopt(listener: TcpListener) -> Result<(SocketAddr, tokio::net::TcpListener), KubeApiError> {
    let address = listener.local_addr();
    let name = address.as_ref().map_or_else(|_| "unknown".to_owned(), ToString::to_string);
    let adopted = address.and_then(|address| {
        listener.set_nonblocking(true)?;
        Ok((address, tokio::net::TcpListener::from_std(listener)?))
    });
    adopted.map_err(|source| KubeApiError::Listener { address: name, source })
}
