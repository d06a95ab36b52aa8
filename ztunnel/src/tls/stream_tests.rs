//! Streams against each other and against tokio-rustls, over pipes that chop.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use rcgen::SanType;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, Tls13CipherSuite};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::handshake::{accept, connect};
use super::test_ca::TestCa;
use super::{Stream, provider};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}
type End = Box<dyn Pipe>;

/// Reads and writes random amounts, and sometimes has to be asked twice.
struct Choppy<Io> {
    io: Io,
    random: Rng,
}

impl<Io> Choppy<Io> {
    fn new(io: Io, seed: u64) -> Self {
        Self { io, random: Rng::with_seed(seed) }
    }

    fn amount(&mut self, cx: &Context<'_>) -> Option<usize> {
        if self.random.u8(..4) == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        let most = [3, 40, 2000, 20_000, 300_000][self.random.usize(..5)];
        Some(self.random.usize(1..=most))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Choppy<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(amount) = self.amount(cx) else { return Poll::Pending };
        let most = to.remaining().min(amount);
        let mut part = ReadBuf::new(to.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let filled = part.filled().len();
        to.advance(filled);
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Choppy<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(amount) = self.amount(cx) else { return Poll::Pending };
        let most = bytes.len().min(amount);
        Pin::new(&mut self.io).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whose implementation of TLS.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ours,
    Theirs,
}

const KINDS: [(Kind, Kind); 3] =
    [(Kind::Ours, Kind::Ours), (Kind::Ours, Kind::Theirs), (Kind::Theirs, Kind::Ours)];

#[derive(Clone)]
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn configs() -> Configs {
    // A server that sends tickets would wait for a client that is done to read them.
    configs_with(|server| server.send_tls13_tickets = 0)
}

fn configs_with(change: impl FnOnce(&mut ServerConfig)) -> Configs {
    configs_of(&provider(), change)
}

fn configs_of(provider: &Arc<CryptoProvider>, change: impl FnOnce(&mut ServerConfig)) -> Configs {
    let ca = TestCa::new();
    let (key, leaf) = ca.leaf(&[], |params| {
        params.subject_alt_names = vec![SanType::IpAddress(LOOPBACK)];
    });
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    change(&mut server);
    Configs { client: Arc::new(client), server: Arc::new(server) }
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(LOOPBACK.into())
}

impl Configs {
    fn client_session(&self) -> Box<UnbufferedClientConnection> {
        Box::new(UnbufferedClientConnection::new(Arc::clone(&self.client), name()).unwrap())
    }

    fn server_session(&self) -> Box<UnbufferedServerConnection> {
        Box::new(UnbufferedServerConnection::new(Arc::clone(&self.server)).unwrap())
    }

    async fn connect<Io: Pipe + 'static>(&self, kind: Kind, io: Io) -> io::Result<End> {
        match kind {
            Kind::Ours => Ok(Box::new(connect(io, self.client_session()).await?)),
            Kind::Theirs => {
                let connector = TlsConnector::from(Arc::clone(&self.client));
                Ok(Box::new(connector.connect(name(), io).await?))
            }
        }
    }

    async fn accept<Io: Pipe + 'static>(&self, kind: Kind, io: Io) -> io::Result<End> {
        match kind {
            Kind::Ours => Ok(Box::new(accept(io, self.server_session()).await?)),
            Kind::Theirs => {
                let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
                Ok(Box::new(acceptor.accept(io).await?))
            }
        }
    }

    async fn pair<Io: Pipe + 'static>(
        &self,
        (client, server): (Kind, Kind),
        (near, far): (Io, Io),
    ) -> (End, End) {
        let both =
            soon(async { tokio::join!(self.connect(client, near), self.accept(server, far)) })
                .await;
        (both.0.unwrap(), both.1.unwrap())
    }

    async fn ours(&self, capacity: usize) -> (Stream<DuplexStream>, Stream<DuplexStream>) {
        let (near, far) = duplex(capacity);
        let both = soon(async {
            tokio::join!(connect(near, self.client_session()), accept(far, self.server_session()))
        })
        .await;
        (both.0.unwrap(), both.1.unwrap())
    }
}

/// A socket pair whose kernel buffers hold next to nothing.
async fn tiny_sockets() -> (TcpStream, TcpStream) {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(2048).unwrap();
    listener.set_send_buffer_size(2048).unwrap();
    listener.bind((LOOPBACK, 0).into()).unwrap();
    let listener = listener.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(2048).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let near = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn random_bytes(random: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Writes in random pieces, flushing now and then, and finishes.
async fn write_randomly<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8], seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut left = bytes;
    while !left.is_empty() {
        let most = [1, 100, 16_384, 70_000, 400_000][random.usize(..5)].min(left.len());
        let (piece, rest) = left.split_at(random.usize(1..=most));
        to.write_all(piece).await.unwrap();
        left = rest;
        if random.bool() {
            to.flush().await.unwrap();
        }
    }
    to.shutdown().await.unwrap();
}

/// Reads in random pieces to the end; some reads are given up at once.
async fn read_randomly<R: AsyncRead + Unpin>(from: &mut R, seed: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(seed);
    let mut all = Vec::new();
    let mut buffer = vec![0; 300_000];
    loop {
        let most = [1, 9, 4000, 16_384, 300_000][random.usize(..5)];
        let part = &mut buffer[..random.usize(1..=most)];
        let read = if random.bool() {
            let mut read = std::pin::pin!(from.read(part));
            match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
                Poll::Ready(read) => read.unwrap(),
                Poll::Pending => {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
        } else {
            from.read(part).await.unwrap()
        };
        if read == 0 {
            return all;
        }
        all.extend_from_slice(&part[..read]);
    }
}

/// Both directions at once, each to its end.
async fn exchange(near: End, far: End, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let lengths = [random.usize(..600_000), random.usize(..600_000)];
    let sent = lengths.map(|length| random_bytes(&mut random, length));
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (at_far, at_near, (), ()) = soon(async {
        tokio::join!(
            read_randomly(&mut far_read, seed + 1),
            read_randomly(&mut near_read, seed + 2),
            write_randomly(&mut near_write, &sent[0], seed + 3),
            write_randomly(&mut far_write, &sent[1], seed + 4),
        )
    })
    .await;
    assert!(at_far == sent[0], "seed {seed}: {} of {} bytes", at_far.len(), sent[0].len());
    assert!(at_near == sent[1], "seed {seed}: {} of {} bytes", at_near.len(), sent[1].len());
}

#[tokio::test]
async fn bytes_arrive_exactly_however_they_are_chopped() {
    let configs = configs();
    for seed in 0..4 {
        for kinds in KINDS {
            for capacity in [50, 5000, 1 << 20] {
                println!("seed {seed}, {kinds:?}, pipe of {capacity}");
                let (near, far) = duplex(capacity);
                let ends = (Choppy::new(near, seed), Choppy::new(far, seed + 100));
                let (near, far) = configs.pair(kinds, ends).await;
                exchange(near, far, seed * 1000).await;
            }
        }
    }
}

#[tokio::test]
async fn bytes_arrive_exactly_over_sockets_with_tiny_buffers() {
    let configs = configs();
    for kinds in KINDS {
        let (near, far) = configs.pair(kinds, tiny_sockets().await).await;
        exchange(near, far, 7).await;
    }
}

#[tokio::test]
async fn one_direction_may_finish_before_the_other() {
    let configs = configs();
    for kinds in KINDS {
        let (mut near, mut far) = configs.pair(kinds, duplex(4096)).await;
        soon(async {
            near.write_all(b"question").await.unwrap();
            near.shutdown().await.unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question", "{kinds:?}");
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
            text.clear();
            near.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "answer", "{kinds:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_an_error_and_no_end() {
    let configs = configs();
    for kinds in KINDS {
        for written in [&b""[..], b"some bytes"] {
            let (mut near, mut far) = configs.pair(kinds, duplex(4096)).await;
            near.write_all(written).await.unwrap();
            near.flush().await.unwrap();
            drop(near);
            let mut all = Vec::new();
            let error = soon(far.read_to_end(&mut all)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{kinds:?}");
            assert_eq!(all, written, "what came before is not lost");
            let again = soon(far.read(&mut [0])).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::UnexpectedEof, "{kinds:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_written_after_the_end() {
    let (mut near, _far) = configs().ours(4096).await;
    near.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    let error = near.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// Lets the first `most` bytes out and then cuts the connection.
struct CutAfter {
    io: Option<DuplexStream>,
    most: usize,
}

impl AsyncRead for CutAfter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => Pin::new(io).poll_read(cx, to),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for CutAfter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.most.min(bytes.len());
        let Some(io) = &mut self.io else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = std::task::ready!(Pin::new(io).poll_write(cx, &bytes[..most]))?;
        self.most -= written;
        if self.most == 0 {
            self.io = None;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A whole client: handshake, some bytes, the end. Cut after any number of its bytes, it
/// never looks like a client that has finished.
#[tokio::test]
async fn a_client_cut_anywhere_is_never_taken_for_finished() {
    let configs = configs();
    let client = |most| {
        let configs = configs.clone();
        let (near, far) = duplex(1 << 16);
        let play = async move {
            let io = CutAfter { io: Some(near), most };
            let mut stream = connect(io, configs.client_session()).await?;
            stream.write_all(&[7; 100]).await?;
            stream.shutdown().await?;
            let length = most - stream.get_ref().most;
            // Until the server has gone: it still writes.
            let _ = stream.read(&mut [0]).await;
            Ok::<usize, io::Error>(length)
        };
        (play, far)
    };
    let server = |far| {
        let configs = configs.clone();
        async move {
            let mut all = Vec::new();
            let mut stream = accept(far, configs.server_session()).await?;
            stream.read_to_end(&mut all).await?;
            Ok::<_, io::Error>(all)
        }
    };
    let (play, far) = client(usize::MAX);
    let (length, whole) = soon(async { tokio::join!(play, server(far)) }).await;
    assert_eq!(whole.unwrap(), [7; 100]);
    let length = length.unwrap();
    assert!(length > 200, "{length}");
    for most in (1..length).step_by(13).chain(length - 30..length) {
        let (play, far) = client(most);
        let (_, cut) = soon(async { tokio::join!(play, server(far)) }).await;
        assert!(cut.is_err(), "cut after {most} of {length} bytes: {cut:?}");
    }
}

/// The last message of a handshake, data and the end, all in one piece.
#[tokio::test]
async fn data_right_behind_the_handshake_is_kept() {
    let configs = configs();
    for kind in [Kind::Ours, Kind::Theirs] {
        let (near, mut near_far) = duplex(1 << 20);
        let (mut far_near, far) = duplex(1 << 20);
        let sent = random_bytes(&mut Rng::with_seed(1), 50_000);
        let play = async {
            let mut stream = configs.connect(kind, near).await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let relay = async {
            let (mut from_server, mut to_server) = tokio::io::split(&mut far_near);
            let (mut from_client, mut to_client) = tokio::io::split(&mut near_far);
            let mut hello = vec![0; 1 << 16];
            let read = from_client.read(&mut hello).await.unwrap();
            to_server.write_all(&hello[..read]).await.unwrap();
            let mut rest = Vec::new();
            let answers = tokio::io::copy(&mut from_server, &mut to_client);
            tokio::select! {
                biased;
                read = from_client.read_to_end(&mut rest) => drop(read.unwrap()),
                _ = answers => panic!("the server finished first"),
            }
            to_server.write_all(&rest).await.unwrap();
        };
        let serve = async {
            let mut stream = configs.accept(Kind::Ours, far).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all
        };
        let (_stream, (), all) = soon(async { tokio::join!(play, relay, serve) }).await;
        assert!(all == sent, "{kind:?}: {} bytes", all.len());
    }
}

#[tokio::test]
async fn keys_are_renewed_by_either_side_in_mid_flow() {
    let configs = configs();
    let (near, far) = duplex(3000);
    let accepting = TlsAcceptor::from(Arc::clone(&configs.server)).accept(far);
    let connecting = connect(near, configs.client_session());
    let (ours, theirs) = soon(async { tokio::join!(connecting, accepting) }).await;
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    let mut random = Rng::with_seed(3);
    for round in 0..20 {
        let sent = random_bytes(&mut random, 10_000);
        // Staged before the change and sealed after it, or the other way round.
        ours.write_all(&sent[..5000]).await.unwrap_or_else(|e| panic!("round {round}: {e}"));
        if round % 2 == 0 {
            ours.renew_keys().unwrap();
        } else {
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
        }
        let mut at_theirs = vec![0; sent.len()];
        let mut at_ours = vec![0; sent.len()];
        soon(async {
            let (mut our_read, mut our_write) = tokio::io::split(&mut ours);
            let (mut their_read, mut their_write) = tokio::io::split(&mut theirs);
            tokio::join!(
                async {
                    our_write.write_all(&sent[5000..]).await.unwrap();
                    our_write.flush().await.unwrap();
                },
                async { their_read.read_exact(&mut at_theirs).await.unwrap() },
                async {
                    their_write.write_all(&sent).await.unwrap();
                    their_write.flush().await.unwrap();
                },
                async { our_read.read_exact(&mut at_ours).await.unwrap() },
            );
        })
        .await;
        assert!(at_theirs == sent && at_ours == sent, "round {round}");
    }
}

/// Keys of AES-GCM are good for 2^24 records; here for 40.
#[tokio::test]
async fn worn_out_keys_are_renewed_without_being_asked() {
    let suite = TLS13_AES_256_GCM_SHA384.tls13().unwrap();
    let short_lived: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { confidentiality_limit: 40, ..suite.common },
        ..*suite
    }));
    let provider = CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(short_lived)],
        ..(*provider()).clone()
    };
    let configs = configs_of(&Arc::new(provider), |server| server.send_tls13_tickets = 0);
    for kinds in KINDS {
        let (mut near, mut far) = configs.pair(kinds, duplex(5000)).await;
        let sent = random_bytes(&mut Rng::with_seed(9), 300_000);
        for _ in 0..2 {
            std::mem::swap(&mut near, &mut far);
            let (from, to) = (&mut near, &mut far);
            soon(async {
                let mut read = vec![0; 1000];
                // A record each, 300 of them.
                for piece in sent.chunks(1000) {
                    let write = async {
                        from.write_all(piece).await.unwrap();
                        from.flush().await.unwrap();
                    };
                    let answer = async { to.read_exact(&mut read).await.unwrap() };
                    tokio::join!(write, answer);
                    assert!(read == piece);
                }
            })
            .await;
        }
    }
}

/// Tickets of a server that fragments: messages of several records, while the client
/// writes between any two of their bytes.
#[tokio::test]
async fn a_message_in_pieces_does_not_disturb_a_writer() {
    let configs = configs_with(|server| {
        server.send_tls13_tickets = 8;
        server.max_fragment_size = Some(32);
    });
    for seed in 0..10 {
        let (near, far) = duplex(1 << 20);
        let accepting = TlsAcceptor::from(Arc::clone(&configs.server)).accept(far);
        let connecting = connect(Choppy::new(near, seed), configs.client_session());
        let (near, far) = soon(async { tokio::join!(connecting, accepting) }).await;
        let (near, mut far) = (near.unwrap(), far.unwrap());
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let sent = random_bytes(&mut Rng::with_seed(seed), 3000);
        let mut at_far = vec![0; sent.len()];
        soon(async {
            tokio::join!(
                async {
                    for byte in &sent {
                        near_write.write_all(&[*byte]).await.unwrap();
                        near_write.flush().await.unwrap();
                    }
                },
                async {
                    let mut text = [0; 5];
                    near_read.read_exact(&mut text).await.unwrap();
                    assert_eq!(&text, b"hello");
                },
                async {
                    far.write_all(b"hello").await.unwrap();
                    far.flush().await.unwrap();
                    far.read_exact(&mut at_far).await.unwrap();
                }
            );
        })
        .await;
        assert!(at_far == sent, "seed {seed}");
    }
}

#[tokio::test]
async fn a_changed_byte_is_an_error_that_the_peer_hears_of() {
    let configs = configs();
    let (mut near, mut middle_near) = duplex(1 << 16);
    let (mut middle_far, far) = duplex(1 << 16);
    let spoilt = AtomicBool::new(false);
    let spoil = async {
        let (mut a, mut b) = tokio::io::split(&mut middle_near);
        let (mut c, mut d) = tokio::io::split(&mut middle_far);
        let forth = async {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = a.read(&mut buffer).await {
                if spoilt.load(Ordering::SeqCst) {
                    buffer[read - 1] ^= 1;
                }
                d.write_all(&buffer[..read]).await.unwrap();
            }
        };
        tokio::join!(forth, tokio::io::copy(&mut c, &mut b)).1.unwrap();
    };
    let play = async {
        let mut stream = connect(&mut near, configs.client_session()).await.unwrap();
        stream.read_u8().await.unwrap();
        spoilt.store(true, Ordering::SeqCst);
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert!(matches!(inner, Some(rustls::Error::AlertReceived(_))), "{error}");
    };
    let serve = async {
        let mut stream = accept(far, configs.server_session()).await.unwrap();
        stream.write_u8(1).await.unwrap();
        stream.flush().await.unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert_eq!(inner, Some(&rustls::Error::DecryptError), "{error}");
        let again = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::InvalidData);
        stream
    };
    let (play, serve) = (Box::pin(play), Box::pin(serve));
    soon(Box::pin(async {
        tokio::select! {
            _ = async { tokio::join!(play, serve) } => {}
            () = spoil => panic!("the pipe ended first"),
        }
    }))
    .await;
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer_and_a_torn_record_only_itself() {
    let (mut near, mut far) = configs().ours(1 << 20).await;
    let sent = vec![5; 700_000];
    {
        let (from, to) = (&mut near, &mut far);
        let mut read = vec![0; sent.len()];
        soon(async {
            tokio::join!(
                async {
                    from.write_all(&sent).await.unwrap();
                    from.flush().await.unwrap();
                },
                async { to.read_exact(&mut read).await.unwrap() }
            );
        })
        .await;
        assert!(to.read(&mut [0]).now_or_never().is_none());
    }
    assert_eq!((near.held(), far.held()), (0, 0));
    // The beginning of a record, as from a peer that stops in the middle.
    let (mut raw, far) = duplex(1 << 16);
    let (near, mut relay) = duplex(1 << 16);
    let configs = configs();
    let (client, server, ()) = soon(async {
        tokio::join!(
            connect(near, configs.client_session()),
            accept(far, configs.server_session()),
            async {
                let relayed = tokio::io::copy_bidirectional(&mut relay, &mut raw);
                // Until both handshakes are done and nothing moves.
                drop(timeout(Duration::from_millis(500), relayed).await);
            }
        )
    })
    .await;
    let (_client, mut server) = (client.unwrap(), server.unwrap());
    raw.write_all(&[23, 3, 3, 0x40, 0, 1, 2, 3]).await.unwrap();
    assert!(server.read(&mut [0]).now_or_never().is_none());
    assert!((8..64).contains(&server.held()), "{} bytes held", server.held());
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_written_to_without_bound() {
    let (mut near, _far) = configs().ours(1000).await;
    let piece = vec![1; 100_000];
    let mut taken = 0;
    while let Some(written) = near.write(&piece).now_or_never() {
        taken += written.unwrap();
        assert!(taken < 2 << 20);
    }
    assert!(taken > 1 << 20, "{taken}");
    assert!(near.held() < 2 << 20);
}

#[tokio::test]
async fn garbage_is_refused_with_an_alert() {
    let (mut near, far) = duplex(1 << 16);
    near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let error = soon(accept(far, configs().server_session())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut answer = Vec::new();
    soon(near.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
}

#[tokio::test]
async fn a_handshake_of_endless_length_is_ended() {
    let (mut near, far) = duplex(1 << 16);
    let flood = async move {
        // A message that announces 64 KiB - 1, in records of one byte.
        for byte in [1, 0, 0xff, 0xff].into_iter().chain(std::iter::repeat(0)) {
            if near.write_all(&[22, 3, 1, 0, 1, byte]).await.is_err() {
                break;
            }
        }
    };
    let serve = async { accept(far, configs().server_session()).await.unwrap_err() };
    let ((), error) = soon(async { tokio::join!(flood, serve) }).await;
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}
