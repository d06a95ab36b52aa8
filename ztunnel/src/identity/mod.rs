//! Certificates of the pods that this ztunnel serves.
//!
//! ```text
//! PodProxy ──lease(identity)──► Certificates ──one keeper per identity──► CaClient ──► CA
//!     ▲                              │   at start, at half of its life, on demand
//!     └────── certificate() ◄────────┘   the old one stays until it expires
//! ```
//!
//! Each keeper also remembers the roots of earlier answers for as long as peers may have
//! certificates of them, so that a rotation of the root refuses nobody.
//!
//! A certificate is asked for only while somebody holds a lease of its identity, and
//! forgotten with the last lease.

mod ca;
#[cfg(test)]
mod ca_tests;
mod certified;
mod channel;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod keeper;
mod metrics;
mod overlap;
mod queue;
mod root_watch;
#[cfg(test)]
mod rotation_tests;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use ca::{CaClient, CaSettings, Subject};
pub use certified::CertifiedIdentity;
pub use channel::{ChannelError, ControlChannel};
pub use headers::ExtraHeaders;
pub use root_watch::follow_root;
#[cfg(test)]
pub(crate) use store::Issuer;
pub use store::{Certificates, Lease};
pub use summary::{CertificateSummary, Summary};
pub use token::Token;

use mesh::Identity;

/// The token for the control plane could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is not readable.
    #[error("read token {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It holds something that no HTTP header can carry.
    #[error("token from {0} holds characters that no header can carry")]
    Characters(String),
}

/// Why there is no certificate for an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No token to call with.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Key or signing request could not be made.
    #[error("make key and signing request for {identity}: {source}")]
    Request {
        /// Whose.
        identity: Identity,
        /// What rcgen says.
        source: rcgen::Error,
    },
    /// The CA is unreachable or said no. "unauthenticated" is a matter of the token,
    /// "permission denied" of where the identity's pods run.
    #[error("CA did not sign {identity}: {}: {}", .status.code().description(), .status.message())]
    Refused {
        /// Whose.
        identity: Identity,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// The CA did not answer in time.
    #[error("CA did not answer for {0} in time")]
    Deadline(Identity),
    /// What the CA returned is not what was asked for.
    #[error("certificate that the CA returned for {identity} is rejected: {reason}")]
    Rejected {
        /// Whose.
        identity: Identity,
        /// Which check failed.
        reason: String,
    },
    /// What there was is past its time, and nothing new could be had.
    #[error("certificate of {identity} has expired: {cause}")]
    Expired {
        /// Whose.
        identity: Identity,
        /// Why there is no new one.
        cause: Arc<IdentityError>,
    },
    /// ztunnel is ending, or the last lease is gone.
    #[error("certificate of {0} is no longer kept")]
    Forgotten(Identity),
}
