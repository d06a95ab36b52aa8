//! TLS in front of both services: version 1.3, HTTP/2, and a server certificate that the
//! same root has signed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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
/// Of these, handshakes with one address: who begins many and finishes none must not keep
/// others out. One too many is closed, and may come again.
const PER_ADDRESS: usize = 8;
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

/// Handshakes that go on, by address.
#[derive(Debug, Default)]
struct Ongoing(Mutex<HashMap<IpAddr, usize>>);

/// One of them, until it is dropped.
struct Shaking {
    all: Arc<Ongoing>,
    ip: IpAddr,
}

impl Ongoing {
    fn begin(self: &Arc<Self>, ip: IpAddr) -> Option<Shaking> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Shaking { all: Arc::clone(self), ip })
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

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
    let ongoing = Arc::<Ongoing>::default();
    let mut handshakes = JoinSet::new();
    let next = async || {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("it is never closed");
        (turn, listener.accept().await)
    };
    while let Some((turn, accepted)) = stop.run_until_cancelled(next()).await {
        while handshakes.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = ongoing.begin(peer.ip()) else { continue };
                let acceptor = acceptor.clone();
                let place = (turn, place);
                handshakes.spawn(shake(place, acceptor, stream, Peer(peer), ready.clone()));
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
    _place: (OwnedSemaphorePermit, Shaking),
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName as Name};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpSocket;
    use tokio_rustls::TlsConnector;

    use super::*;

    fn client_of(root: &Root) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// A connection from an address of its own.
    async fn dial(last: u8, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    #[tokio::test]
    async fn who_never_finishes_does_not_keep_others_out() {
        let root = Arc::new(Root::generate("td", OffsetDateTime::now_utc()).unwrap());
        let names = vec![ServerName::Dns("localhost".to_owned())];
        let certificate = Arc::new(ServerCertificate::new(Arc::clone(&root), names).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (ready, mut connections) = queue();
        let stop = CancellationToken::new();
        let accepting =
            tokio::spawn(accept(listener, config(certificate).unwrap(), ready, stop.clone()));
        let mut idle = Vec::new();
        for _ in 0..2 * HANDSHAKES {
            idle.push(dial(2, at).await);
        }
        let name = Name::try_from("localhost").unwrap();
        let shaking = client_of(&root).connect(name, dial(3, at).await);
        // Sooner than those who say nothing are given up.
        let shaken = timeout(HANDSHAKE / 2, shaking).await;
        shaken.expect("a handshake beside those who say nothing").unwrap();
        assert_eq!(connections.recv().await.unwrap().unwrap().peer.0.ip().to_string(), "127.0.0.3");
        stop.cancel();
        accepting.await.unwrap();
    }
}
