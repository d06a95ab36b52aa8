//! From a fresh key to a checked certificate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use super::IdentityError;
use crate::tls::{Credentials, Terms, identity_of};

/// How far the clock of the CA may be ahead of ours.
const SKEW: Duration = Duration::from_secs(120);

/// What a certificate is put into use with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) terms: &'a Terms,
    /// Believed beside those that come with the certificate.
    pub(super) earlier_roots: &'a [CertificateDer<'static>],
}

/// An identity with the means to prove it.
pub struct CertifiedIdentity {
    identity: Identity,
    credentials: Credentials,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Leaf first, without roots.
    chain: Vec<CertificateDer<'static>>,
    /// Those of the CA's answer first, then earlier ones.
    roots: Vec<CertificateDer<'static>>,
    answered_roots: usize,
}

impl CertifiedIdentity {
    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For [`crate::tls`].
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The last moment of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The certificates of its chain without the roots, and the roots.
    pub(super) fn certificates(&self) -> (&[CertificateDer<'static>], &[CertificateDer<'static>]) {
        (&self.chain, &self.roots)
    }

    /// The roots that came along with it.
    pub(super) fn answered_roots(&self) -> &[CertificateDer<'static>] {
        &self.roots[..self.answered_roots]
    }

    /// Is it past its time?
    #[must_use]
    pub fn expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// How long until half of its life is over. If by our clock that is already past, or
    /// nearly, the clocks disagree: then a tenth of its life, or half of what is left.
    pub(super) fn refresh_in(&self, now: SystemTime) -> Duration {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let rest = self.not_after.duration_since(now).unwrap_or_default();
        let half = (self.not_before + life / 2).duration_since(now).unwrap_or_default();
        half.clamp(life / 10, life / 2).min(rest / 2)
    }
}

/// No key in logs.
impl fmt::Debug for CertifiedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedIdentity")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A fresh key and the request to sign it.
pub(super) struct KeyRequest<'a> {
    identity: &'a Identity,
    key: KeyPair,
    csr: String,
}

impl<'a> KeyRequest<'a> {
    pub(super) fn new(identity: &'a Identity) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Request { identity: identity.clone(), source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = Ia5String::try_from(identity.to_string()).map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
        Ok(Self { identity, key, csr })
    }

    /// PEM.
    pub(super) fn csr(&self) -> &str {
        &self.csr
    }

    /// Checks what the CA returned and joins it with the key.
    pub(super) fn certify(
        self,
        chain: &[String],
        surroundings: &Surroundings<'_>,
    ) -> Result<CertifiedIdentity, IdentityError> {
        let identity = self.identity;
        self.checked(chain, surroundings)
            .map_err(|reason| IdentityError::Rejected { identity: identity.clone(), reason })
    }

    fn checked(
        self,
        chain: &[String],
        surroundings: &Surroundings<'_>,
    ) -> Result<CertifiedIdentity, String> {
        let (roots, signed) = chain.split_last().ok_or("the answer is empty")?;
        let mut roots = parse_pem(std::slice::from_ref(roots))?;
        let chain = parse_pem(signed)?;
        let leaf = chain.first().ok_or("the answer holds no root beside the certificate")?;
        let found = identity_of(leaf).map_err(|e| e.to_string())?;
        if found != *self.identity {
            return Err(format!("it is for {found}"));
        }
        let (not_before, not_after) = validity(leaf)?;
        verify_chain(leaf, &chain[1..], &root_store(&roots)?, not_before)?;
        let answered_roots = roots.len();
        let news = surroundings.earlier_roots.iter().filter(|root| !roots.contains(root));
        let news: Vec<_> = news.cloned().collect();
        roots.extend(news);
        let key = certified_key(&self.key, chain.clone())?;
        let domain = self.identity.trust_domain();
        let store = Arc::new(root_store(&roots)?);
        let credentials =
            Credentials::new(key, store, domain, surroundings.terms).map_err(|e| e.to_string())?;
        let identity = self.identity.clone();
        Ok(CertifiedIdentity {
            identity,
            credentials,
            not_before,
            not_after,
            chain,
            roots,
            answered_roots,
        })
    }
}

fn parse_pem(texts: &[String]) -> Result<Vec<CertificateDer<'static>>, String> {
    texts
        .iter()
        .flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no PEM: {error}"))
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| format!("its root is unusable: {error}"))?;
    }
    if store.is_empty() { Err("it comes without a root".to_owned()) } else { Ok(store) }
}

/// A peer would make the same checks; better to keep the old certificate than to find
/// out from them. One that begins in a moment is not refused: clocks differ a little.
fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    not_before: SystemTime,
) -> Result<(), String> {
    let now = SystemTime::now();
    let early = not_before.duration_since(now).is_ok_and(|early| early <= SKEW);
    let at = if early { not_before } else { now };
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| e.to_string())?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(since);
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, at, algorithms)
        .map_err(|error| error.to_string())
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    if parsed.is_ca() {
        return Err("it is a CA certificate".to_owned());
    }
    let at = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).map_err(|_| "it is older than 1970")?;
        Ok::<_, String>(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    Ok((at(parsed.validity().not_before)?, at(parsed.validity().not_after)?))
}

/// The copy of the key that is made here is wiped. aws-lc wipes its own; rcgen's goes
/// with the request, unwiped.
fn certified_key(
    key: &KeyPair,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, String> {
    let mut der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = any_ecdsa_type(&der);
    der.zeroize();
    let key = CertifiedKey::new(chain, signer.map_err(|e| e.to_string())?);
    key.keys_match().map_err(|_| "it is not for the key that was sent".to_owned())?;
    Ok(key)
}
