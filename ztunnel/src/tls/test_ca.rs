//! A certificate authority for tests.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;

use super::{Credentials, Terms, provider};

type TestIssuer = Arc<CertifiedIssuer<'static, KeyPair>>;

/// Signs whatever it is asked to sign.
#[derive(Clone)]
pub(crate) struct TestCa {
    issuer: Arc<Mutex<TestIssuer>>,
    /// Roots that the certificate service answers beside its own, as PEM.
    more_roots: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    /// Whom it has signed, in order.
    signed: Arc<Mutex<Vec<String>>>,
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
            issuer: Arc::new(Mutex::new(Arc::new(issuer))),
            more_roots: Arc::default(),
            asked: Arc::default(),
            refusals: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            signed: Arc::default(),
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

    /// Answers nobody more until [`TestCa::let_through`].
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Answers so many more.
    pub(crate) fn let_through(&self, requests: usize) {
        self.gate.add_permits(requests);
    }

    /// Waits until an answer may be given.
    pub(crate) async fn pass(&self) {
        self.gate.acquire().await.unwrap().forget();
    }

    /// Whom it has signed, in order.
    pub(crate) fn signed(&self) -> Vec<String> {
        self.signed.lock().unwrap().clone()
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn issuer(&self) -> TestIssuer {
        Arc::clone(&self.issuer.lock().unwrap())
    }

    pub(crate) fn root_pem(&self) -> String {
        self.issuer().pem()
    }

    /// From now on signs as `other` does, and answers its root.
    pub(crate) fn turn_into(&self, other: &TestCa) {
        *self.issuer.lock().unwrap() = other.issuer();
    }

    /// The certificate service answers these roots too.
    pub(crate) fn answer_also(&self, pem: &str) {
        pem.clone_into(&mut self.more_roots.lock().unwrap());
    }

    /// A revocation list with these serial numbers, as PEM.
    pub(crate) fn revocation_list(&self, serials: &[u64], next_update: OffsetDateTime) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: OffsetDateTime::now_utc(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: next_update - Duration::days(7),
            next_update,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
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
        csr.params.serial_number = Some(SerialNumber::from(self.asked() as u64));
        csr.params.not_before = OffsetDateTime::now_utc() - Duration::seconds(1);
        csr.params.not_after = OffsetDateTime::now_utc() + self.life;
        let name = csr.params.subject_alt_names.iter().find_map(|name| match name {
            SanType::URI(uri) => Some(uri.to_string()),
            _ => None,
        });
        self.signed.lock().unwrap().extend(name);
        let roots = self.root_pem() + &self.more_roots.lock().unwrap();
        Ok(vec![csr.signed_by(&self.issuer()).unwrap().pem(), roots])
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer().der().clone()).unwrap();
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
        self.credentials_under(&Terms::default(), uris, change)
    }

    /// The same on other terms than the default.
    pub(crate) fn credentials_under(
        &self,
        terms: &Terms,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let (key, certificate) = self.leaf(uris, change);
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(der).unwrap();
        let key = CertifiedKey::new(vec![certificate.der().clone()], signer);
        Credentials::new(key, self.roots(), mesh_domain(), terms).unwrap()
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
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        (key, certificate)
    }
}

/// The trust domain of tests.
pub(crate) fn mesh_domain() -> &'static str {
    "cluster.local"
}
