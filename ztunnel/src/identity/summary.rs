//! What the configuration dump tells about certificates.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use mesh::Identity;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IdentityError;
use super::certified::CertifiedIdentity;

/// One identity and the state of its certificate, in the words of Istio's dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// SPIFFE id.
    pub identity: String,
    /// `Available`, `Initializing`, or `Unavailable: <why>`.
    pub state: String,
    /// Leaf first, without roots.
    pub cert_chain: Vec<CertificateSummary>,
    /// Whom it believes.
    pub root_certs: Vec<CertificateSummary>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSummary {
    /// The certificate itself: PEM in base64.
    pub pem: String,
    /// In decimal.
    pub serial_number: String,
    /// RFC 3339.
    pub valid_from: String,
    /// RFC 3339.
    pub expiration_time: String,
}

impl Summary {
    pub(super) fn new(
        identity: &Identity,
        certified: Option<&CertifiedIdentity>,
        error: Option<&IdentityError>,
    ) -> Self {
        let state = match (certified, error) {
            (Some(_), _) => "Available".to_owned(),
            (None, None) => "Initializing".to_owned(),
            (None, Some(error)) => format!("Unavailable: {error}"),
        };
        let (chain, roots) = certified.map(CertifiedIdentity::certificates).unwrap_or_default();
        let all = |list: &[CertificateDer<'_>]| list.iter().filter_map(summarize).collect();
        Self {
            identity: identity.to_string(),
            state,
            cert_chain: all(chain),
            root_certs: all(roots),
        }
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = BASE64.encode(certificate);
    let lines: Vec<_> =
        body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Certificates that got this far were parsed before.
fn summarize(certificate: &CertificateDer<'_>) -> Option<CertificateSummary> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let text = |time: x509_parser::time::ASN1Time| {
        OffsetDateTime::from_unix_timestamp(time.timestamp()).ok()?.format(&Rfc3339).ok()
    };
    Some(CertificateSummary {
        pem: BASE64.encode(pem(certificate)),
        serial_number: parsed.serial.to_string(),
        valid_from: text(parsed.validity().not_before)?,
        expiration_time: text(parsed.validity().not_after)?,
    })
}
