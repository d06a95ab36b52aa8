//! Revocation lists as they are in a file (RFC 5280, section 5).

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, SubjectPublicKeyInfo, X509Certificate,
};

/// The extension of a delta list, which holds only news. (Issuing distribution points
/// narrow what a list speaks of, which makes no entry of it wrong.)
const DELTA: &str = "2.5.29.27";

/// A certificate that is believed no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Hexadecimal, colon separated.
    pub serial: String,
    /// Distinguished name.
    pub issuer: String,
}

impl fmt::Display for RevokedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {} is revoked", self.serial, self.issuer)
    }
}

/// The lists of a file.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<List>);

#[derive(Debug)]
struct List {
    der: Vec<u8>,
    /// DER of the distinguished name.
    issuer: Vec<u8>,
    next_update: Option<SystemTime>,
    serials: HashSet<Vec<u8>>,
    /// Its signature was looked at, with the keys of its issuer at hand.
    checked: AtomicBool,
}

impl Lists {
    /// PEM with any number of lists, or one list as DER; nothing is no list.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        if bytes.starts_with(&[0x30]) {
            return Ok(Self(vec![List::parse(bytes)?]));
        }
        let sections: Vec<(SectionKind, Vec<u8>)> = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("no PEM: {error}"))?;
        let lists = sections.into_iter().map(|(kind, der)| match kind {
            SectionKind::Crl => List::parse(&CertificateRevocationListDer::from(der)),
            other => Err(format!("holds a {other:?}, which is no revocation list")),
        });
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() { Err("holds no revocation list".to_owned()) } else { Ok(Self(lists)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Certificates that are revoked, in all lists.
    pub(super) fn entries(&self) -> usize {
        self.0.iter().map(|list| list.serials.len()).sum()
    }

    /// How many should have been replaced by now.
    pub(super) fn stale(&self, now: SystemTime) -> usize {
        self.0.iter().filter(|list| list.next_update.is_some_and(|at| at < now)).count()
    }

    /// The file is the operator's, as the file of roots is: an entry counts whoever
    /// signed the list. A list whose signature does not fit is still told about, because
    /// entries may be missing from it.
    pub(super) fn revoked(
        &self,
        chain: &[CertificateDer<'_>],
        roots: &RootCertStore,
    ) -> Option<RevokedCertificate> {
        if self.is_empty() {
            return None;
        }
        let parsed = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let chain: Vec<_> = parsed.map(|(_, certificate)| certificate).collect();
        chain.iter().find_map(|certificate| {
            let issuer = certificate.issuer();
            let mut revoked = false;
            for list in self.0.iter().filter(|list| list.issuer == issuer.as_raw()) {
                list.check_signature(&chain, roots);
                revoked |= list.serials.contains(significant(certificate.raw_serial()));
            }
            revoked.then(|| RevokedCertificate {
                serial: certificate.raw_serial_as_string(),
                issuer: issuer.to_string(),
            })
        })
    }
}

impl List {
    fn parse(der: &[u8]) -> Result<Self, String> {
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| format!("broken revocation list: {error}"))?;
        if !rest.is_empty() {
            return Err("bytes after the end of a revocation list".to_owned());
        }
        if list.extensions().iter().any(|extension| extension.oid.to_id_string() == DELTA) {
            return Err("delta revocation lists are not supported".to_owned());
        }
        let at = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let serials = list.iter_revoked_certificates();
        Ok(Self {
            issuer: list.issuer().as_raw().to_vec(),
            next_update: list.next_update().map(at),
            serials: serials.map(|entry| significant(entry.raw_serial()).to_vec()).collect(),
            der: der.to_vec(),
            checked: AtomicBool::new(false),
        })
    }

    /// Tells once if none of the issuer's keys that we know made the signature. Several
    /// keys may have one name, while a root is being rotated.
    fn check_signature(&self, chain: &[X509Certificate<'_>], roots: &RootCertStore) {
        if self.checked.swap(true, Ordering::Relaxed) {
            return;
        }
        let above = chain.iter().filter(|one| one.subject().as_raw() == self.issuer);
        let by_chain = above.map(|one| one.public_key().raw.to_vec());
        let anchors = roots.roots.iter();
        let anchors = anchors.filter(|root| sequence(&root.subject) == self.issuer);
        let by_root = anchors.map(|root| sequence(&root.subject_public_key_info));
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else {
            return;
        };
        let fits = |key: Vec<u8>| {
            SubjectPublicKeyInfo::from_der(&key)
                .is_ok_and(|(_, key)| list.verify_signature(&key).is_ok())
        };
        if !by_chain.chain(by_root).any(fits) {
            tracing::warn!(issuer = %list.issuer(),
                "revocation list is not signed by the issuer it names; is it complete?");
        }
    }
}

/// DER writes a zero in front of some numbers, some issuers do not.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros.min(serial.len().saturating_sub(1))..]
}

/// Trust anchors come without the tag and length that other DER has in front.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let bytes = length.to_be_bytes();
    let short = significant(&bytes);
    let mut der = vec![0x30];
    if length >= 0x80 {
        der.push(0x80 | u8::try_from(short.len()).expect("a length has at most 8 bytes"));
    }
    der.extend_from_slice(short);
    der.extend_from_slice(content);
    der
}
