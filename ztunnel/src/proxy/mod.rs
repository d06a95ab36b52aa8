//! What happens to the connections of a captured pod.
//!
//! ```text
//! in the pod's namespace                           on one of ztunnel's workers
//!   15001 ◄─ what its applications open ─► outbound ─► route ─┬► tunnel to the peer's 15008
//!                                                             └► passthrough
//!   15008 ◄─ tunnels of peers ───────────► inbound ──► policy ──► the application
//!   15006 ◄─ plaintext from outside ─────► inbound_plain ► policy ► the application
//! ```
//!
//! Whatever cannot be decided is refused, with a reset: an application must not take a
//! refusal for an answer that ended early.

mod accept;
mod admission;
mod adopt;
mod app_socket;
mod context;
mod descriptors;
mod dial;
mod dns;
// For benches too, which are built without `cfg(fuzzing)`.
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod inbound;
mod inbound_plain;
mod limits;
mod listen;
mod outbound;
mod own;
mod own_identity;
mod pod;
mod refusal;
mod report;
mod roster;
mod splice;
mod stages;
mod target;
#[cfg(test)]
mod tests;
mod tune;

use std::io;
use std::time::Duration;

pub use context::{AppTunnel, Ipv6, ProxyContext, ResponseBaggage, Role, Settings, SourceAddress};
pub use limits::Limits;
pub use listen::{Claim, GivenError, GivenListener, Listeners, NameServer, OpenListener, Socket};
pub use pod::{Connections, Drain, Pod, PodProxy};
pub use tune::{Keepalive, TcpSettings, UserTimeout};

/// How long a TCP connection may take to be answered.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a peer may take for TLS, and then for the beginning of HTTP/2.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection is held while we wait for what is needed to judge it: a complete
/// view, the pod's own workload, a policy that it lists, its certificate.
const KNOWLEDGE_WAIT: Duration = Duration::from_secs(5);

/// Why a pod cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The pod's names make no identity.
    #[error("pod {pod}: {source}")]
    Identity {
        /// `namespace/name`.
        pod: String,
        /// What is wrong with them.
        source: mesh::IdentityError,
    },
    /// Its namespace cannot be entered.
    #[error("pod {pod}: {source}")]
    Fence {
        /// `namespace/name`.
        pod: String,
        /// Why not.
        source: netns::FenceError,
    },
    /// Its name server cannot be had.
    #[error("pod {pod}: {source}")]
    Dns {
        /// `namespace/name`.
        pod: String,
        /// Why not.
        source: crate::dns::ListenError,
    },
    /// A port is not ours. "Address in use" means that an application, or another proxy,
    /// holds it.
    #[error("pod {pod}: listen on port {port}: {source}")]
    Listen {
        /// `namespace/name`.
        pod: String,
        /// Which one.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
}
