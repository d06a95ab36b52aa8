//! TLS as the mesh uses it: who we are, whom we believe, and nothing negotiable.
//!
//! ```text
//! Credentials (key, chain, roots) ──► accept ──► stream + the client's identity
//!                                └──► connect(accepted identities) ──► stream + the server's
//! ControlSettings ──► ControlConnector ──► stream to the control plane (ordinary server names)
//! ```
//!
//! AES-GCM only, TLS 1.3 unless 1.2 is asked for, no SNI, no resumption and no tickets:
//! a resumed session would skip the verifier, and connections live long anyway. A
//! certificate's rustls configurations are built once; what changes under them
//! (revocation) is looked up at each handshake.

mod control;
mod credentials;
mod files;
mod handshake;
mod mutual;
mod peer;
mod provider;
mod revocation;
mod roots;
mod stream;
mod stream_buffers;
mod stream_end;
mod stream_session;
#[cfg(test)]
mod stream_tests;
mod terms;
#[cfg(test)]
pub(crate) mod test_ca;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_names;
mod verifier;
mod watched;

pub use control::{ControlConnector, ControlSettings};
pub use credentials::Credentials;
pub(crate) use files::FileWatch;
pub use mutual::{accept, connect};
pub use peer::{PeerError, identity_of};
#[cfg(test)]
pub(crate) use provider::provider;
pub(crate) use provider::random;
pub use provider::{Compliance, Cryptography, Versions};
pub use revocation::{Revocation, RevocationError, RevokedCertificate};
pub use roots::RootSource;
pub use stream::Stream;
pub use terms::{Settings, Terms};
pub use watched::{Peer, Watched};

use std::io;
use std::path::PathBuf;

/// ALPN of HTTP/2, the only protocol spoken over TLS here.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// Why a connection could not be secured, or trust could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file with root certificates could not be read.
    #[error("read root certificates {path}: {source}")]
    RootFile {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Root certificates that are none.
    #[error("root certificates from {origin} are not usable: {reason}")]
    Roots {
        /// File name, or where else they came from.
        origin: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The address of the control plane has no usable host.
    #[error("{0:?} is not a host name or address that a certificate can prove")]
    ServerName(String),
    /// Configuration that rustls refuses.
    #[error("TLS configuration: {0}")]
    Config(#[source] rustls::Error),
    /// A TCP connection to the control plane failed.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The handshake failed: the peer is not who it should be, or does not speak TLS.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The peer did not finish in time.
    #[error("no answer from {0} in time")]
    Deadline(String),
    /// The peer did not agree to speak HTTP/2.
    #[error("peer did not negotiate h2 by ALPN")]
    Alpn,
    /// The peer's certificate does not name an identity.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Rules about cryptography that contradict each other.
    #[error("TLS 1.2 has no post-quantum key exchange: switch one of the two off")]
    Compliance,
    /// Revocation lists that cannot be used.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
}

impl TlsError {
    /// Was the peer refused because its certificate is revoked?
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        let Self::Handshake(error) = self else {
            return false;
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked)))
    }
}
