//! What fuzz targets reach of this room: the answer of the CA.

use mesh::Identity;
use rustls::pki_types::CertificateDer;

use super::CertifiedIdentity;
use super::certified::{KeyRequest, Surroundings};
use crate::tls::Terms;

/// Checks `chain` as if the CA had answered it to a request for `identity`.
///
/// # Errors
/// Why it is rejected.
pub fn certify(
    identity: &Identity,
    chain: &[String],
    terms: &Terms,
    earlier_roots: &[CertificateDer<'static>],
) -> Result<CertifiedIdentity, String> {
    let key = KeyRequest::new(identity).map_err(|error| error.to_string())?;
    key.certify(chain, &Surroundings { terms, earlier_roots }).map_err(|error| error.to_string())
}
