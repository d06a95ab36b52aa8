//! What ztunnel tells about connections: one access-log line and Istio's TCP metrics for
//! each, and a name for everything it refused.
//!
//! The proxy opens a [`ConnectionGuard`] when it accepts, counts bytes on it, and closes
//! it with the outcome. Label sets are resolved once per connection: after that the data
//! path touches atomics only.

mod access;
mod connection;
mod labels;
mod line;
pub mod log;
mod metrics;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::{Identity, Workload};
use prometheus_client::registry::Registry;

pub use connection::ConnectionGuard;
use metrics::Metrics;

use crate::dns;

/// Which end of a connection this ztunnel speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's node.
    Source,
    /// The server's node.
    Destination,
}

/// As seen from the pod that the connection was captured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Toward the pod.
    Inbound,
    /// Away from the pod.
    Outbound,
}

/// How the bytes travel between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// In a tunnel whose both ends proved an identity.
    MutualTls,
    /// In clear text.
    Plain,
}

/// One end of a connection, as far as it is known.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address, in the mesh's terms: never that of a ztunnel.
    pub addr: SocketAddr,
    /// Which workload has that address.
    pub workload: Option<Arc<Workload>>,
    /// Who it is; on the far side only what a certificate proved.
    pub identity: Option<Identity>,
}

/// The facts of a connection when it begins.
#[derive(Clone, Debug)]
pub struct ConnectionOpen {
    /// Which end reports.
    pub reporter: Reporter,
    /// Seen from the captured pod.
    pub direction: Direction,
    /// Who dialled.
    pub src: Endpoint,
    /// What was dialled.
    pub dst: Endpoint,
    /// The peer ztunnel's address, when a tunnel carries the connection.
    pub hbone_addr: Option<SocketAddr>,
    /// How the bytes travel.
    pub security: Security,
}

/// Istio's short codes for what went wrong, in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    /// Nothing that has a code.
    None,
    /// A policy said no.
    Deny,
    /// The destination could not be reached.
    Connect,
    /// The TLS handshake with the peer failed.
    TlsFailure,
    /// The peer does not speak HTTP/2 as it should.
    H2HandshakeFailure,
    /// The peer's port 15008 was not reachable; most often a network policy blocks it.
    NetworkPolicy,
    /// Our own identity could not be had.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl ResponseFlags {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

/// Why a connection did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Istio's code.
    pub flags: ResponseFlags,
    /// For the operator: subject, step, likely cause.
    pub text: String,
}

/// A connection that was closed on purpose before any byte of it was carried.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its facts; [`ConnectionOpen::security`] is what it came with.
    pub connection: ConnectionOpen,
    /// The reason's stable name, a label of the counter: `snake_case`.
    pub reason: &'static str,
    /// The same for the log.
    pub failure: Failure,
}

/// The proxy's way to report; cloning shares the counters.
#[derive(Clone, Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    dns: dns::Metrics,
}

impl Telemetry {
    /// Registers the metrics of connections and lookups.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            metrics: Arc::new(Metrics::register(registry)),
            dns: dns::Metrics::register(registry),
        }
    }

    /// The counters of lookups.
    #[must_use]
    pub fn dns(&self) -> &dns::Metrics {
        &self.dns
    }

    /// A connection begins.
    #[must_use]
    pub fn open(&self, connection: ConnectionOpen) -> ConnectionGuard {
        access::opened(&connection);
        ConnectionGuard::new(&self.metrics, connection)
    }

    /// A connection was refused.
    pub fn refused(&self, refusal: &Refusal) {
        access::refused(refusal);
        self.metrics.refused(refusal);
    }

    /// A connection goes on in clear text, because a complete view does not know its
    /// destination.
    pub fn passthrough_unknown_destination(&self) {
        self.metrics.passthrough_unknown_destination.inc();
    }
}

#[cfg(test)]
mod tests;
