//! Mutual TLS between ztunnels: both ends prove a SPIFFE id.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    Resumption, UnbufferedClientConnection, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    NoServerSessionStorage, ParsedCertificate, UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, RootCertStore, ServerConfig, SignatureScheme, version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::peer::{PeerError, identity_of};
use super::stream::Stream;
use super::{ALPN_H2, TlsError, handshake, provider};

/// What one workload proves itself with, and whom it believes. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    key: CertifiedKey,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Puts a key with its chain, the roots and the own trust domain together.
    ///
    /// # Errors
    /// [`TlsError::Config`] when key or roots are unusable.
    pub fn new(
        key: CertifiedKey,
        roots: Arc<RootCertStore>,
        trust_domain: &str,
    ) -> Result<Self, TlsError> {
        let server = Arc::new(server_config(&key, &roots, trust_domain)?);
        Ok(Self { key, roots, server })
    }
}

/// The private key stays out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("chain", &self.key.cert.len()).finish_non_exhaustive()
    }
}

/// Serves a handshake on `io` and tells who the client is.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Config`],
/// [`TlsError::Peer`].
pub async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(
    credentials: &Credentials,
    io: Io,
    deadline: Duration,
) -> Result<(Stream<Io>, Identity), TlsError> {
    let session = UnbufferedServerConnection::new(Arc::clone(&credentials.server));
    let session = Box::new(session.map_err(TlsError::Config)?);
    let stream = timeout(deadline, handshake::accept(io, session))
        .await
        .map_err(|_| TlsError::Deadline("the TLS client".to_owned()))?
        .map_err(TlsError::Handshake)?;
    let identity = checked(stream.session())?;
    Ok((stream, identity))
}

/// Performs a handshake on `io` with a server that must be one of `accepted`, and tells
/// which.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Config`],
/// [`TlsError::Peer`].
pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
    credentials: &Credentials,
    accepted: &[Identity],
    io: Io,
    peer: IpAddr,
    deadline: Duration,
) -> Result<(Stream<Io>, Identity), TlsError> {
    let config = client_config(credentials, accepted)?;
    let name = ServerName::IpAddress(peer.into());
    let session = UnbufferedClientConnection::new(Arc::new(config), name);
    let session = Box::new(session.map_err(TlsError::Config)?);
    let stream = timeout(deadline, handshake::connect(io, session))
        .await
        .map_err(|_| TlsError::Deadline(format!("the TLS server at {peer}")))?
        .map_err(TlsError::Handshake)?;
    let identity = checked(stream.session())?;
    Ok((stream, identity))
}

/// What a finished handshake must have brought.
fn checked(connection: &CommonState) -> Result<Identity, TlsError> {
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err(TlsError::Alpn);
    }
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(PeerError::None)?;
    Ok(identity_of(leaf)?)
}

fn server_config(
    key: &CertifiedKey,
    roots: &Arc<RootCertStore>,
    trust_domain: &str,
) -> Result<ServerConfig, TlsError> {
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
    let verifier = ClientVerifier { chain, trust_domain: trust_domain.to_owned() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    credentials: &Credentials,
    accepted: &[Identity],
) -> Result<ClientConfig, TlsError> {
    let verifier = ServerVerifier {
        roots: Arc::clone(&credentials.roots),
        accepted: accepted.to_vec(),
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.key.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn refuse(error: PeerError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Believes servers by their SPIFFE id; addresses and names prove nothing here.
#[derive(Debug)]
struct ServerVerifier {
    roots: Arc<RootCertStore>,
    accepted: Vec<Identity>,
    provider: Arc<CryptoProvider>,
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
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let found = identity_of(end_entity).map_err(refuse)?;
        if self.accepted.contains(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected: Vec<_> = self.accepted.iter().map(ToString::to_string).collect();
        Err(refuse(PeerError::Unexpected { found, expected: expected.join(",") }))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes clients of our own trust domain; who they are is for policy to judge.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
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
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
