//! The name server inside the pods: what the mesh knows is answered from the view,
//! everything else goes on to the resolver that the application asked.
//!
//! ```text
//! application ─ port 53 ─► [redirected to 15053] ─► server ─► answer (pure: question, view)
//!                                                     │ not for us
//!                                                     └► forward ─ marked socket in the pod ─► resolver
//! ```
//!
//! An answer is for us when it is about the IPv4 or IPv6 addresses of a service that the
//! pod may see, by its hostname or by a shorter form that a search list makes of it. All
//! other messages are opaque: they go out and come back byte for byte, only their id is
//! replaced on the way. Whoever asked gets an answer or a SERVFAIL, never silence.
//!
//! The resolver is the one that was addressed, as conntrack remembers it: the pod's own
//! `resolv.conf` has been applied already, by the application. Where that cannot be found
//! out it is one of ztunnel's own.

mod answer;
mod directory;
mod forward;
mod frame;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod metrics;
mod resolver;
mod server;
mod sockets;
#[cfg(test)]
mod tests;
mod transfer;
mod upstreams;
mod wire;

use std::sync::Arc;

pub use answer::{Facts, Outcome, Transport, answer};
pub use forward::{ForwardError, Forwarder, Origin};
pub use metrics::Metrics;
pub use resolver::{Family, ResolveError, Resolver};
pub use server::Server;
pub use sockets::{ListenError, Sockets};
pub use upstreams::Upstreams;

/// What all pods' name servers have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether pods have a name server at all. Whether lookups are redirected to it is the
    /// node agent's decision, pod by pod.
    pub mode: Mode,
    /// The cluster's domain, in lower case: services are `name.namespace.svc.<domain>`.
    pub domain: Arc<str>,
    /// Port of the in-pod listeners.
    pub port: u16,
    /// Of namespaces that have the same hostname, and none of which is the client's.
    pub preferred_namespace: Option<Arc<str>>,
    /// Asked where it is not known whom the pod itself asked, and for ztunnel's own lookups.
    pub upstreams: Upstreams,
}

/// Is there a name server in the pods?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In every pod.
    Serve,
    /// In none.
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Serve,
            domain: "cluster.local".into(),
            port: zds::port::DNS,
            preferred_namespace: None,
            upstreams: Upstreams::default(),
        }
    }
}
