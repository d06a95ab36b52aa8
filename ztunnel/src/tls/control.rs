//! TLS to the control plane: an ordinary server with an ordinary name, proved by roots
//! from a file that may be rotated under us.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ALPN_H2, TlsError, provider};

/// How long TCP and TLS together may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Where the root certificates of the control plane come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A PEM file, read again for each connection, so that a rotation needs no restart.
    File(PathBuf),
    /// PEM text.
    Pem(String),
}

/// Where the control plane is and how it proves itself.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// `https://host:port`.
    pub address: Uri,
    /// Whom to believe.
    pub root: RootSource,
    /// The name its certificate has, where that differs from the address' host.
    pub alt_hostname: Option<String>,
}

/// Makes TLS connections to one control plane address. For use under an HTTP/2 client.
#[derive(Clone, Debug)]
pub struct ControlConnector {
    settings: Arc<ControlSettings>,
    name: ServerName<'static>,
}

impl ControlConnector {
    /// Checks the settings; nothing is connected yet.
    ///
    /// # Errors
    /// [`TlsError::ServerName`].
    pub fn new(settings: ControlSettings) -> Result<Self, TlsError> {
        let host = settings.address.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = settings.alt_hostname.clone().unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name))?;
        Ok(Self { settings: Arc::new(settings), name })
    }

    /// Connects and verifies the server.
    ///
    /// # Errors
    /// Any [`TlsError`].
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, TlsError> {
        let address = self.settings.address.to_string();
        timeout(CONNECT_DEADLINE, self.handshake())
            .await
            .unwrap_or_else(|_| Err(TlsError::Deadline(address)))
    }

    async fn handshake(&self) -> Result<TlsStream<TcpStream>, TlsError> {
        let config = Arc::new(client_config(load_roots(&self.settings.root)?)?);
        let tcp = self.dial().await?;
        let stream = TlsConnector::from(config)
            .connect(self.name.clone(), tcp)
            .await
            .map_err(TlsError::Handshake)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(TlsError::Alpn);
        }
        Ok(stream)
    }

    async fn dial(&self) -> Result<TcpStream, TlsError> {
        let uri = &self.settings.address;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(443);
        let failed = |source| TlsError::Connect { address: format!("{host}:{port}"), source };
        let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(300))
            .with_interval(Duration::from_secs(75))
            .with_retries(9);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(failed)?;
        Ok(tcp)
    }
}

impl tower::Service<Uri> for ControlConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    /// Where to is a matter of the settings, not of the request.
    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

fn load_roots(source: &RootSource) -> Result<RootCertStore, TlsError> {
    let (origin, pem) = match source {
        RootSource::Pem(text) => ("the setting".to_owned(), text.clone().into_bytes()),
        RootSource::File(path) => {
            let failed = |source| TlsError::RootFile { path: path.clone(), source };
            (path.display().to_string(), fs::read(path).map_err(failed)?)
        }
    };
    let unusable = |reason: String| TlsError::Roots { origin: origin.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("no certificate found".to_owned()));
    }
    Ok(roots)
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Config)?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
