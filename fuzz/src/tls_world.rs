//! Certificates: fixed ones to be spoiled, and fresh ones to shake hands with.

use std::sync::{Arc, OnceLock};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ztunnel::tls::{Credentials, Terms};

/// A root, a leaf of it for [`ID`], and a list that revokes another leaf, good for two
/// thousand years. `certificates/make` made them; their keys are gone.
pub const ROOT: &str = include_str!("../certificates/root.pem");
pub const LEAF: &str = include_str!("../certificates/leaf.pem");
pub const LIST: &str = include_str!("../certificates/list.pem");
/// Whose the leaf is.
pub const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// The DER in a PEM of ours.
#[must_use]
pub fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("our own")
}

/// The list as DER.
#[must_use]
pub fn list() -> CertificateRevocationListDer<'static> {
    CertificateRevocationListDer::from_pem_slice(LIST.as_bytes()).expect("our own")
}

/// The identity of [`ID`].
#[must_use]
pub fn identity() -> Identity {
    ID.parse().expect("our own")
}

/// Credentials for [`ID`] that both ends of a connection may use. Made once.
pub fn credentials() -> &'static Credentials {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
    CREDENTIALS.get_or_init(|| fresh().expect("a certificate"))
}

fn fresh() -> Result<Credentials, Box<dyn std::error::Error>> {
    let (ca_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key)?;
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(Ia5String::try_from(ID)?)];
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    let signer = any_ecdsa_type(&PrivateKeyDer::try_from(key.serialize_der())?)?;
    let certified = CertifiedKey::new(vec![leaf.der().clone()], signer);
    Ok(Credentials::new(certified, Arc::new(roots), "cluster.local", &Terms::default())?)
}
