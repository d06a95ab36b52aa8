//! Whom to believe, as settings name it.

use std::fs;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::TlsError;

/// Where the root certificates of the control plane come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file, read again for each connection, so that a rotation needs no restart.
    File(PathBuf),
    /// PEM text.
    Pem(String),
    /// What the operating system believes (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or the
    /// distribution's bundle).
    System,
}

impl RootSource {
    /// All of them as they are now.
    ///
    /// # Errors
    /// [`TlsError::RootFile`], [`TlsError::Roots`].
    pub(super) fn load(&self) -> Result<RootCertStore, TlsError> {
        match self {
            Self::Pem(text) => parse("the setting", text.as_bytes()),
            Self::File(path) => {
                let failed = |source| TlsError::RootFile { path: path.clone(), source };
                parse(&path.display().to_string(), &fs::read(path).map_err(failed)?)
            }
            Self::System => system(),
        }
    }
}

fn parse(origin: &str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let unusable = |reason: String| TlsError::Roots { origin: origin.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("no certificate found".to_owned())) } else { Ok(roots) }
}

/// A distribution's bundle may hold what rustls does not understand; the rest counts.
fn system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let reason = format!("no certificate found {}", reasons.join(", "));
        return Err(TlsError::Roots { origin: "the system".to_owned(), reason });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_roots_are_all_that_it_has_or_an_error_that_says_whose_they_are() {
        match RootSource::System.load() {
            Ok(roots) => assert!(!roots.is_empty()),
            Err(error) => assert!(error.to_string().contains("from the system"), "{error}"),
        }
    }
}
