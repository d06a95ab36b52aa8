//! Tunnels between a real client and a real server over loopback sockets, without TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use mesh::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{
    Connect, OpenError, Pool, PoolKey, PumpError, ServerTunnel, Settings, TunnelStream, pump,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Small, so that the kernel does not do the reading for an application that does not.
const KERNEL_BUFFER: u32 = 64 << 10;

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// As a proxy does it: a connection that was torn is reset.
async fn carry(tcp: TcpStream, mut stream: TunnelStream) -> Result<(), PumpError> {
    let result = pump(&tcp, &mut stream, |_, _| ()).await;
    if result.is_err() {
        let _ = tcp.set_zero_linger();
    }
    result
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A peer that connects every stream to `app`.
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Connections that have ended.
    ended: watch::Receiver<usize>,
    /// Bumped to make all connections drain.
    drain: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Peer {
    async fn start(app: SocketAddr, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (ended_sender, ended) = watch::channel(0);
        let (drain, drained) = watch::channel(());
        let mut tasks = JoinSet::new();
        let counter = Arc::clone(&connections);
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (settings, ended) = (settings.clone(), ended_sender.clone());
                let mut drained = drained.clone();
                drained.mark_unchanged();
                served.spawn(async move {
                    serve(tcp, app, &settings, drained).await;
                    ended.send_modify(|count| *count += 1);
                });
            }
        });
        Self { addr, connections, ended, drain, _tasks: tasks }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    tcp: TcpStream,
    app: SocketAddr,
    settings: &Settings,
    mut drained: watch::Receiver<()>,
) {
    let Ok(mut tunnel) = ServerTunnel::accept(tcp, settings, PATIENCE).await else {
        return;
    };
    let mut streams = JoinSet::new();
    let mut draining = false;
    loop {
        tokio::select! {
            next = tunnel.next() => match next {
                Ok(Some(incoming)) => {
                    assert_eq!(incoming.authority(), Some("10.0.0.1:80"));
                    streams.spawn(async move {
                        let socket = TcpSocket::new_v4().unwrap();
                        socket.set_send_buffer_size(KERNEL_BUFFER).unwrap();
                        let tcp = socket.connect(app).await.unwrap();
                        let stream = incoming.accept(HeaderMap::new()).unwrap();
                        let _ = carry(tcp, stream).await;
                    });
                }
                Ok(None) | Err(_) => break,
            },
            changed = drained.changed(), if !draining => {
                draining = true;
                if changed.is_ok() {
                    tunnel.drain();
                }
            }
        }
    }
    drop(tunnel);
    streams.join_all().await;
}

pub(super) fn key(destination: SocketAddr) -> PoolKey {
    let source = Identity::new("", "shop", "cart").unwrap();
    let accepted = vec![Identity::new("", "shop", "db").unwrap()];
    PoolKey { source, accepted, destination }
}

pub(super) fn request() -> Connect {
    Connect { authority: "10.0.0.1:80".to_owned(), headers: HeaderMap::new() }
}

pub(super) type TestPool = Pool<io::Error>;

pub(super) async fn open(
    pool: &TestPool,
    to: SocketAddr,
) -> Result<TunnelStream, OpenError<io::Error>> {
    let dial = || TcpStream::connect(to);
    soon(pool.open(&key(to), &request(), dial)).await.map(|(stream, _)| stream)
}

/// A client application whose connection goes through the tunnel.
pub(super) async fn client(pool: &TestPool, to: SocketAddr) -> TcpStream {
    let stream = open(pool, to).await.unwrap();
    let (near, far) = pair().await;
    tokio::spawn(carry(far, stream));
    near
}

/// Server applications: each connection arrives at the receiver.
async fn app() -> (SocketAddr, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(KERNEL_BUFFER).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    (listener.local_addr().unwrap(), listener)
}

pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    soon(listener.accept()).await.unwrap().0
}

pub(super) async fn world(settings: Settings) -> (Peer, TcpListener, TestPool) {
    let (addr, listener) = app().await;
    (Peer::start(addr, settings.clone()).await, listener, Pool::new(settings))
}

/// Bytes that repeat with a period that is no frame size.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_both_ways_at_once_and_arrives_unchanged() {
    let (peer, listener, pool) = world(Settings::default()).await;
    let mut near = client(&pool, peer.addr).await;
    let mut far = accept(&listener).await;
    let sent = pattern(24 << 20);
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let (mut at_far, mut at_near) = (Vec::new(), Vec::new());
    soon(async {
        tokio::try_join!(
            async {
                near_write.write_all(&sent).await?;
                near_write.shutdown().await
            },
            async {
                far_write.write_all(&sent).await?;
                far_write.shutdown().await
            },
            far_read.read_to_end(&mut at_far),
            near_read.read_to_end(&mut at_near),
        )
    })
    .await
    .unwrap();
    assert!(at_far == sent, "{} bytes of {}", at_far.len(), sent.len());
    assert!(at_near == sent, "{} bytes of {}", at_near.len(), sent.len());
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let (peer, listener, pool) = world(Settings::default()).await;
    for client_first in [true, false] {
        let mut near = client(&pool, peer.addr).await;
        let mut far = accept(&listener).await;
        let (first, second) =
            if client_first { (&mut near, &mut far) } else { (&mut far, &mut near) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut text = String::new();
        soon(second.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "question");
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        let mut text = String::new();
        soon(first.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "answer");
    }
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset() {
    let (peer, listener, pool) = world(Settings::default()).await;
    for client_first in [true, false] {
        let mut near = client(&pool, peer.addr).await;
        let mut far = accept(&listener).await;
        near.write_all(b"x").await.unwrap();
        assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
        let (gone, mut left) = if client_first { (near, far) } else { (far, near) };
        gone.set_zero_linger().unwrap();
        drop(gone);
        let error = soon(left.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "client first: {client_first}");
    }
}

#[tokio::test]
async fn a_pump_that_is_dropped_resets_both_ends() {
    let (peer, listener, pool) = world(Settings::default()).await;
    let stream = open(&pool, peer.addr).await.unwrap();
    let mut far = accept(&listener).await;
    drop(stream);
    let error = soon(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A hand-made client that frames as it likes.
async fn raw_client(peer: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(peer).await.unwrap();
    let (send, connection) = h2::client::Builder::new()
        .max_send_buffer_size(64 << 20)
        .handshake::<_, Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

async fn raw_open(
    send: &h2::client::SendRequest<Bytes>,
) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("10.0.0.1:80")
        .body(())
        .unwrap();
    let mut send = send.clone().ready().await.unwrap();
    let (answer, stream) = send.send_request(request, false).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    (stream, answer.into_body())
}

/// Without room for them, h2 would end the connection and all its tunnels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_frames_to_an_application_that_does_not_read_hurt_no_other_tunnel() {
    const FRAMES: usize = 200_000;
    let (peer, listener, _pool) = world(Settings::default()).await;
    let send = raw_client(peer.addr).await;
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let (mut stream, body) = raw_open(&send).await;
        let app = accept(&listener).await;
        for frame in 0..FRAMES {
            let bytes = [u8::try_from(frame % 251).unwrap(); 16];
            stream.send_data(Bytes::copy_from_slice(&bytes), false).unwrap();
        }
        stalled.push((stream, body, app));
    }
    // A round trip on the same connection, behind all those frames.
    let (mut stream, mut body) = raw_open(&send).await;
    let mut app = accept(&listener).await;
    stream.send_data(Bytes::from_static(b"ping"), false).unwrap();
    let mut buffer = [0; 4];
    soon(app.read_exact(&mut buffer)).await.unwrap();
    app.write_all(b"pong").await.unwrap();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "pong");
    // And the slow applications find everything when they read at last.
    for (mut stream, _body, mut app) in stalled {
        stream.send_data(Bytes::new(), true).unwrap();
        let mut all = Vec::new();
        soon(app.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.len(), FRAMES * 16);
        let sound = all
            .chunks(16)
            .enumerate()
            .all(|(frame, chunk)| chunk.iter().all(|b| usize::from(*b) == frame % 251));
        assert!(sound, "bytes changed on the way");
    }
}

/// h2 counts empty frames for the life of a connection and ends it at the 100th.
#[tokio::test]
async fn no_empty_frames_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let tcp = listener.accept().await.unwrap().0;
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
        let mut body = request.into_body();
        let mut frames = Vec::new();
        let drive = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        while let Some(Ok(chunk)) = body.data().await {
            body.flow_control().release_capacity(chunk.len()).unwrap();
            frames.push((chunk.len(), body.is_end_stream()));
        }
        drive.abort();
        frames
    });
    let pool = Pool::new(Settings::default());
    let stream = open(&pool, addr).await.unwrap();
    let (mut near, far) = pair().await;
    let carried = tokio::spawn(carry(far, stream));
    for _ in 0..3 {
        near.write_all(b"abc").await.unwrap();
        tokio::task::yield_now().await;
    }
    near.shutdown().await.unwrap();
    soon(carried).await.unwrap().unwrap();
    let frames = soon(server).await.unwrap();
    let total: usize = frames.iter().map(|(length, _)| length).sum();
    assert_eq!(total, 9);
    assert!(frames.iter().all(|(length, end)| *length > 0 || *end), "{frames:?}");
}

#[tokio::test]
async fn a_full_connection_makes_room_for_a_second() {
    let settings = Settings { streams_per_connection: 2, ..Settings::default() };
    let (peer, listener, pool) = world(settings).await;
    let mut held = Vec::new();
    for expected in [1, 1, 2, 2, 3] {
        held.push((client(&pool, peer.addr).await, accept(&listener).await));
        assert_eq!(peer.connections(), expected);
    }
    // The full ones still carry.
    for (near, far) in &mut held {
        near.write_all(b"x").await.unwrap();
        assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn streams_that_come_at_once_share_one_connection() {
    let (peer, listener, pool) = world(Settings::default()).await;
    let apps = tokio::spawn(async move {
        let mut held = Vec::new();
        for _ in 0..30 {
            held.push(accept(&listener).await);
        }
        held
    });
    let opened = join_all((0..30).map(|_| open(&pool, peer.addr))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(peer.connections(), 1);
    soon(apps).await.unwrap();
}

/// Before its SETTINGS have come a peer seems to have no limit, and what is above it would
/// wait for others to end.
#[tokio::test]
async fn streams_that_come_at_once_heed_the_limit_of_a_peer_that_was_not_heard_yet() {
    let (addr, listener) = app().await;
    let peer = Peer::start(addr, Settings { concurrent_streams: 2, ..Settings::default() }).await;
    let pool = TestPool::new(Settings::default());
    let apps = tokio::spawn(async move {
        let mut held = Vec::new();
        for _ in 0..7 {
            held.push(accept(&listener).await);
        }
        held
    });
    let opened = join_all((0..7).map(|_| open(&pool, peer.addr))).await;
    let failed: Vec<_> = opened.iter().filter_map(|opened| opened.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(peer.connections(), 4);
    soon(apps).await.unwrap();
}

#[tokio::test]
async fn a_failed_attempt_is_shared_and_not_remembered() {
    let (peer, _listener, pool) = world(Settings::default()).await;
    let (attempts, all_wait) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let refused = || {
        attempts.fetch_add(1, Ordering::SeqCst);
        let all_wait = Arc::clone(&all_wait);
        async move {
            all_wait.notified().await;
            Err::<TcpStream, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
        }
    };
    let (key, request) = (key(peer.addr), request());
    let opens = join_all((0..10).map(|_| pool.open(&key, &request, refused)));
    // Polled in this order: when the second is, all of the first are waiting.
    let (all, ()) = soon(async { tokio::join!(opens, async { all_wait.notify_one() }) }).await;
    assert!(all.iter().all(|result| matches!(result, Err(OpenError::Dial(_)))));
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    open(&pool, peer.addr).await.unwrap();
}

#[tokio::test]
async fn an_attempt_whose_caller_went_away_blocks_nobody() {
    let (peer, _listener, pool) = world(Settings::default()).await;
    let (key, request) = (key(peer.addr), request());
    let never = || std::future::pending::<io::Result<TcpStream>>();
    let first = timeout(Duration::from_millis(20), pool.open(&key, &request, never)).await;
    assert!(first.is_err());
    open(&pool, peer.addr).await.unwrap();
}

fn quick() -> Settings {
    Settings {
        ping_interval: Duration::from_millis(20),
        ping_deadline: Duration::from_millis(200),
        idle_release: Duration::from_millis(40),
        ..Settings::default()
    }
}

#[tokio::test]
async fn an_idle_connection_is_released_and_a_busy_one_is_not() {
    let (mut peer, listener, pool) = world(quick()).await;
    let mut near = client(&pool, peer.addr).await;
    let mut far = accept(&listener).await;
    // Idle bytes are not an idle connection: longer than the release time, nothing ends.
    let ended = timeout(Duration::from_millis(150), peer.ended.changed()).await;
    assert!(ended.is_err(), "released under an open stream");
    near.write_all(b"x").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    near.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    soon(peer.ended.wait_for(|count| *count == 1)).await.unwrap();
    client(&pool, peer.addr).await;
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = TestPool::new(quick());
    let error = open(&pool, listener.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(error, OpenError::Request(_)), "{error}");
}

/// A server that answers no PING. It sends something, if it talks, every few milliseconds.
async fn deaf(talks: Option<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                // SETTINGS, the answer to the first request, and then credit.
                tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
                // Preface, settings and credit are 70 bytes; what follows is the request.
                let mut read = 0;
                while read <= 70 {
                    read += tcp.read(&mut [0; 1024]).await?;
                }
                tcp.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]).await?;
                let Some(pause) = talks else { return std::future::pending().await };
                loop {
                    tokio::time::sleep(pause).await;
                    tcp.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]).await?;
                }
                #[expect(unreachable_code, reason = "says what the errors are")]
                Ok::<(), io::Error>(())
            });
        }
    });
    addr
}

/// PONGs may wait behind much else on a slow link: whatever comes is a sign of life, but
/// not for ever.
#[tokio::test]
async fn who_sends_is_alive_for_a_while_though_it_answers_no_ping() {
    let settings = Settings { ping_deadline: Duration::from_millis(600), ..quick() };
    let mut lived = Vec::new();
    for talks in [None, Some(Duration::from_millis(20))] {
        let pool = TestPool::new(settings.clone());
        let stream = open(&pool, deaf(talks).await).await.unwrap();
        let (near, far) = pair().await;
        let begun = std::time::Instant::now();
        let error = soon(carry(far, stream)).await.unwrap_err();
        assert!(matches!(error, PumpError::Torn(_)), "{error}");
        lived.push(begun.elapsed().as_millis());
        drop(near);
    }
    // Ten deadlines, with one to spare for a machine that is busy.
    assert!(lived[1] >= 5_000, "{lived:?}");
}

#[tokio::test]
async fn a_draining_connection_finishes_its_streams_and_takes_no_new_ones() {
    let (mut peer, listener, pool) = world(Settings::default()).await;
    let mut near = client(&pool, peer.addr).await;
    let mut far = accept(&listener).await;
    peer.drain.send(()).unwrap();
    // When the client has heard of it, new streams go elsewhere.
    let mut others = Vec::new();
    soon(async {
        while peer.connections() < 2 {
            others.push((client(&pool, peer.addr).await, accept(&listener).await));
        }
    })
    .await;
    near.write_all(b"x").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    // Streams that still came before the GOAWAY end too, and then so does the connection.
    drop((near, far, others));
    soon(peer.ended.wait_for(|count| *count >= 1)).await.unwrap();
}

#[tokio::test]
async fn closing_the_pool_tears_its_streams() {
    let (peer, listener, pool) = world(Settings::default()).await;
    let near = client(&pool, peer.addr).await;
    let mut far = accept(&listener).await;
    soon(pool.close()).await;
    let error = soon(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(near);
}
