//! Who is believed: chain, then identity, then revocation.

use std::sync::Arc;

use mesh::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::peer::{PeerError, identity_of};
use super::revocation::Revocation;
use super::terms::Terms;
use crate::telemetry::Reporter;

/// What both ends verify alike.
#[derive(Debug)]
struct Common {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    revocation: Revocation,
    reporter: Reporter,
}

impl Common {
    fn new(roots: &Arc<RootCertStore>, terms: &Terms, reporter: Reporter) -> Self {
        Self {
            roots: Arc::clone(roots),
            provider: Arc::clone(&terms.cryptography.provider),
            revocation: terms.revocation.clone(),
            reporter,
        }
    }

    fn check_revocation(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(leaf).chain(above).map(|one| CertificateDer::from(&**one)).collect();
        let Some(revoked) = self.revocation.revoked(&chain, &self.roots) else {
            return Ok(());
        };
        self.revocation.count_rejection(self.reporter);
        // The access log has a line of each, and who is refused may come again at once.
        tracing::debug!("peer is refused: {revoked}");
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
    }

    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refuse(error: PeerError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Believes servers by their SPIFFE id; addresses and names prove nothing here.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    common: Common,
    accepted: Vec<Identity>,
}

impl ServerVerifier {
    pub(super) fn new(roots: &Arc<RootCertStore>, accepted: &[Identity], terms: &Terms) -> Self {
        let common = Common::new(roots, terms, Reporter::Source);
        Self { common, accepted: accepted.to_vec() }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.common.roots,
            intermediates,
            now,
            self.common.provider.signature_verification_algorithms.all,
        )?;
        let found = identity_of(end_entity).map_err(refuse)?;
        if !self.accepted.contains(&found) {
            let expected: Vec<_> = self.accepted.iter().map(ToString::to_string).collect();
            return Err(refuse(PeerError::Unexpected { found, expected: expected.join(",") }));
        }
        self.common.check_revocation(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.common.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.common.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.common.schemes()
    }
}

/// Believes clients of our own trust domain; who they are is for policy to judge.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    common: Common,
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl ClientVerifier {
    pub(super) fn new(
        roots: &Arc<RootCertStore>,
        trust_domain: &str,
        terms: &Terms,
    ) -> Result<Self, TlsError> {
        let common = Common::new(roots, terms, Reporter::Destination);
        let provider = Arc::clone(&common.provider);
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
            .build()
            .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
        Ok(Self { common, chain, trust_domain: trust_domain.to_owned() })
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// None: a client has one certificate, so hints would only tell strangers our roots.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let found = identity_of(end_entity).map_err(refuse)?;
        if found.trust_domain() != self.trust_domain {
            let expected = self.trust_domain.clone();
            return Err(refuse(PeerError::TrustDomain { found, expected }));
        }
        self.common.check_revocation(end_entity, intermediates)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.common.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.common.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.common.schemes()
    }
}
