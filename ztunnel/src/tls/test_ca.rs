//! A certificate authority for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use super::{Credentials, provider};

/// Signs whatever it is asked to sign.
#[derive(Clone)]
pub(crate) struct TestCa {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    asked: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    life: Duration,
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestCa")
    }
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            issuer: Arc::new(issuer),
            asked: Arc::default(),
            refusals: Arc::default(),
            life: Duration::hours(1),
        }
    }

    /// Certificates by the certificate service live this long from now.
    pub(crate) fn with_life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// Refuses the next requests.
    pub(crate) fn refuse(&self, requests: usize) {
        self.refusals.store(requests, Ordering::SeqCst);
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    /// As the certificate service answers.
    pub(crate) fn answer(&self, csr: &str) -> Result<Vec<String>, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let refused =
            self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if refused.is_ok() {
            return Err("told to refuse".to_owned());
        }
        let mut csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        csr.params.not_before = OffsetDateTime::now_utc() - Duration::seconds(1);
        csr.params.not_after = OffsetDateTime::now_utc() + self.life;
        Ok(vec![csr.signed_by(&self.issuer).unwrap().pem(), self.root_pem()])
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    pub(crate) fn credentials(&self, identity: &Identity) -> Credentials {
        self.credentials_with(&[&identity.to_string()], |_| ())
    }

    /// Credentials with these URI names, and whatever `change` does to the certificate.
    pub(crate) fn credentials_with(
        &self,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let (key, certificate) = self.leaf(uris, change);
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(der).unwrap();
        let key = CertifiedKey::new(vec![certificate.der().clone()], signer);
        Credentials::new(key, self.roots(), mesh_domain()).unwrap()
    }

    pub(crate) fn leaf(
        &self,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (KeyPair, Certificate) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI(Ia5String::try_from(uri.to_string()).unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (key, certificate)
    }
}

/// The trust domain of tests.
pub(crate) fn mesh_domain() -> &'static str {
    "cluster.local"
}
