//! Why a connection did not end well, or did not begin.

use super::ConnectionOpen;

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
    /// The peer never said that it was finished. Istio's has no code for it.
    Torn,
}

impl ResponseFlags {
    /// All of them, each at the place of its number.
    pub(super) const ALL: [Self; 9] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::H2HandshakeFailure,
        Self::NetworkPolicy,
        Self::IdentityError,
        Self::CertRevoked,
        Self::Torn,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
            Self::Torn => "TORN",
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
