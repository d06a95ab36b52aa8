//! Who a certificate says its holder is.

use std::time::{Duration, SystemTime};

use mesh::Identity;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// SPIFFE-ID specification, section 2.3.
const LONGEST_NAME: usize = 2048;

/// Why a peer, though its certificate may be genuine, is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no certificate.
    #[error("peer showed no certificate")]
    None,
    /// Not parseable, or with extensions that contradict each other.
    #[error("peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// An identity is one URI, neither none nor several.
    #[error("peer's certificate has {0} URI names, exactly one is expected")]
    UriCount(usize),
    /// The URI is no SPIFFE id of a workload.
    #[error("peer's certificate: {0}")]
    Identity(#[from] mesh::IdentityError),
    /// A foreign trust domain.
    #[error("peer {found} is not of trust domain {expected}")]
    TrustDomain {
        /// Who the peer is.
        found: Identity,
        /// Ours.
        expected: String,
    },
    /// Somebody else answers at the destination's address.
    #[error("peer is {found}, expected {expected}")]
    Unexpected {
        /// Who the peer is.
        found: Identity,
        /// Who may be there, comma separated.
        expected: String,
    },
}

/// Reads the identity from the only URI name of a certificate. The signature is not
/// looked at: that is the verifiers' part, and done before.
///
/// # Errors
/// [`PeerError::Malformed`], [`PeerError::UriCount`], [`PeerError::Identity`].
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, PeerError> {
    let parsed = parsed(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|e| malformed(&e))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] if uri.len() > LONGEST_NAME => {
            Err(malformed(&format!("its name has {} bytes", uri.len())))
        }
        [uri] => Ok(uri.parse()?),
        _ => Err(PeerError::UriCount(uris.len())),
    }
}

/// When a certificate ceases to be valid.
///
/// # Errors
/// [`PeerError::Malformed`].
pub fn expiry_of(certificate: &CertificateDer<'_>) -> Result<SystemTime, PeerError> {
    let seconds = parsed(certificate)?.validity().not_after.timestamp();
    // What ended before 1970 ended then.
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or_else(|| malformed(&"it never ends"))
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|e| malformed(&e))?;
    if rest.is_empty() { Ok(parsed) } else { Err(malformed(&"bytes after its end")) }
}

fn malformed(error: &dyn std::fmt::Display) -> PeerError {
    PeerError::Malformed(error.to_string())
}
