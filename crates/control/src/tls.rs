//! TLS in front of both services: version 1.3, HTTP/2, and a server certificate that the
//! same root has signed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::ca::{Root, RootError, ServerName};

/// A client that has not finished by then never will.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes go on at once; others wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// Connections that are ready and not yet taken.
const READY: usize = 16;
/// Half of the certificate's life.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);
/// Between attempts when a renewal fails.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// After a failed accept, most often for want of descriptors: trying again at once would
/// only burn the processor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The server's certificate; the present one is asked for at each handshake.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    root: Arc<Root>,
    names: Vec<ServerName>,
    present: ArcSwap<CertifiedKey>,
}

impl ServerCertificate {
    pub(crate) fn new(root: Arc<Root>, names: Vec<ServerName>) -> Result<Self, RootError> {
        let present = root.issue_server(&names, OffsetDateTime::now_utc())?;
        Ok(Self { root, names, present: ArcSwap::from_pointee(present) })
    }

    /// Renews the certificate again and again, until it is stopped.
    pub(crate) async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = RENEWAL;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = match self.root.issue_server(&self.names, OffsetDateTime::now_utc()) {
                Ok(renewed) => {
                    self.present.store(Arc::new(renewed));
                    RENEWAL
                }
                Err(error) => {
                    tracing::error!(%error, "the server's certificate was not renewed");
                    RENEWAL_RETRY
                }
            };
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present.load_full())
    }
}

/// What is spoken.
pub(crate) fn config(certificate: Arc<ServerCertificate>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A connection with TLS, as tonic wants it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Where a connection comes from, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Accepts until it is stopped. Handshakes go on beside each other, so that a slow client
/// holds up nobody.
pub(crate) async fn accept(
    listener: TcpListener,
    config: ServerConfig,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    let next = async || {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("it is never closed");
        (turn, listener.accept().await)
    };
    while let Some((turn, accepted)) = stop.run_until_cancelled(next()).await {
        while handshakes.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let acceptor = acceptor.clone();
                handshakes.spawn(shake(turn, acceptor, stream, Peer(peer), ready.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The queue between [`accept`] and the server.
pub(crate) fn queue()
-> (mpsc::Sender<io::Result<Connection>>, mpsc::Receiver<io::Result<Connection>>) {
    mpsc::channel(READY)
}

async fn shake(
    _turn: OwnedSemaphorePermit,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: Peer,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    // Requests are small and answers are waited for.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // The receiver is gone only when the server is.
        Ok(Ok(stream)) => drop(ready.send(Ok(Connection { stream, peer })).await),
        Ok(Err(error)) => tracing::debug!(peer = %peer.0, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.0, "TLS handshake not finished in time"),
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
