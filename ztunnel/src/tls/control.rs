//! TLS to the control plane: an ordinary server with an ordinary name, proved by roots
//! from a file that may be rotated under us.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use netns::{Dial, dial_socket};
use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::provider::Cryptography;
use super::roots::RootSource;
use super::{ALPN_H2, TlsError};

/// How long TCP and TLS together may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

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
    cryptography: Cryptography,
    mark: Option<u32>,
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
        let cryptography = Cryptography::default();
        Ok(Self { settings: Arc::new(settings), name, cryptography, mark: None })
    }

    /// With other cryptography than the default.
    #[must_use]
    pub fn with_cryptography(self, cryptography: &Cryptography) -> Self {
        Self { cryptography: cryptography.clone(), ..self }
    }

    /// With a packet mark, where traffic without one would be captured.
    #[must_use]
    pub fn with_mark(self, mark: Option<u32>) -> Self {
        Self { mark, ..self }
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
        let config = Arc::new(self.client_config()?);
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

    /// Built for each connection, which are few: the roots may have changed.
    fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let roots = Arc::new(self.settings.root.load()?);
        let provider = Arc::clone(&self.cryptography.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.cryptography.versions)
            .map_err(TlsError::Config)?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    async fn dial(&self) -> Result<TcpStream, TlsError> {
        let uri = &self.settings.address;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(443);
        let failed = |source| TlsError::Connect { address: format!("{host}:{port}"), source };
        let mut tcp = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for to in lookup_host((host, port)).await.map_err(failed)? {
            tcp = self.connect_to(to).await;
            if tcp.is_ok() {
                break;
            }
        }
        let tcp = tcp.map_err(failed)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(300))
            .with_interval(Duration::from_secs(75))
            .with_retries(9);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(failed)?;
        Ok(tcp)
    }

    async fn connect_to(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = dial_socket(&Dial { to, mark: self.mark, from: None })?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
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
