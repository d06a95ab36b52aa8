//! A tunnel inside a tunnel, over pipes, each with TLS of its own, and what becomes of
//! connections that are not to be used any more.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::HeaderMap;
use mesh::Identity;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Connect, OpenError, Pool, PoolKey, ServerTunnel, Settings, TunnelIo};
use crate::tls::test_ca::TestCa;
use crate::tls::{accept, connect};

const PATIENCE: Duration = Duration::from_secs(60);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

fn id(name: &str) -> Identity {
    Identity::new("", "shop", name).unwrap()
}

fn to(authority: &str) -> Connect {
    Connect { authority: authority.to_owned(), headers: HeaderMap::new() }
}

fn key() -> PoolKey {
    let destination = "10.0.0.9:15008".parse().unwrap();
    PoolKey { source: id("cart"), accepted: vec![id("gateway")], destination }
}

/// Serves one connection as `name`: every stream goes to `streams`.
async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ca: TestCa,
    name: &'static str,
    streams: mpsc::UnboundedSender<(String, TunnelIo)>,
) {
    let (io, client) = accept(&ca.credentials(&id(name)), io, PATIENCE).await.unwrap();
    assert_eq!(client.identity, id("cart"));
    let mut tunnel = ServerTunnel::accept(io, &Settings::default(), PATIENCE).await.unwrap();
    while let Ok(Some(incoming)) = tunnel.next().await {
        let authority = incoming.authority().unwrap().to_owned();
        let stream = incoming.accept(HeaderMap::new()).unwrap();
        let _ = streams.send((authority, stream.into_io()));
    }
}

/// The client's end of the inner stream, and the server's.
struct Nested {
    near: TunnelIo,
    far: TunnelIo,
    pool: Pool<io::Error>,
    _tasks: JoinSet<()>,
}

async fn nested(pipe: usize) -> Nested {
    let ca = TestCa::new();
    let mut tasks = JoinSet::new();
    let pool = Pool::new(Settings::default());
    let (outer_sender, mut outer) = mpsc::unbounded_channel();
    let (inner_sender, mut inner) = mpsc::unbounded_channel();
    let credentials = ca.credentials(&id("cart"));
    let (near, far) = duplex(pipe);
    tasks.spawn(serve(far, ca.clone(), "gateway", outer_sender));
    let near = std::sync::Mutex::new(Some(near));
    let dial = || {
        let io: DuplexStream = near.lock().unwrap().take().expect("dialled once");
        let credentials = credentials.clone();
        async move {
            let secured = connect(&credentials, &[id("gateway")], io, ANY, PATIENCE).await;
            Ok::<_, io::Error>(secured.unwrap().0)
        }
    };
    let opened = soon(pool.open(&key(), &to("db.shop:80"), dial)).await;
    let outer_near = opened.unwrap().0.into_io();
    let (authority, outer_far) = soon(outer.recv()).await.unwrap();
    assert_eq!(authority, "db.shop:80");
    tasks.spawn(serve(outer_far, ca.clone(), "db", inner_sender));
    let accepted = [id("db")];
    let secured = connect(&credentials, &accepted, outer_near, ANY, PATIENCE);
    let (io, server) = soon(secured).await.unwrap();
    assert_eq!(server.identity, id("db"));
    let near = soon(pool.open_once(io, &to("10.0.0.1:80"))).await.unwrap().0.into_io();
    let (authority, far) = soon(inner.recv()).await.unwrap();
    assert_eq!(authority, "10.0.0.1:80");
    Nested { near, far, pool, _tasks: tasks }
}

#[tokio::test]
async fn a_tunnel_in_a_tunnel_carries_both_ways_to_the_end() {
    for pipe in [700, 1 << 20] {
        let Nested { near, far, pool: _pool, _tasks } = nested(pipe).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let (mut far_read, mut far_write) = tokio::io::split(far);
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
        assert!(at_far == sent && at_near == sent, "pipe of {pipe}");
    }
}

#[tokio::test]
async fn an_inner_stream_that_is_dropped_is_torn_at_the_other_end() {
    let Nested { near, mut far, pool: _pool, _tasks } = nested(1 << 16).await;
    drop(near);
    let error = soon(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_driver_of_an_inner_connection_ends_with_its_stream() {
    let Nested { mut near, mut far, pool, _tasks } = nested(1 << 16).await;
    near.write_all(b"x").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');
    far.shutdown().await.unwrap();
    assert_eq!(soon(near.read(&mut [0])).await.unwrap(), 0);
    drop((near, far));
    // Retired, and without streams: nothing keeps any driver.
    pool.retire_all();
    soon(pool.idle()).await;
}

#[tokio::test]
async fn a_cut_pool_tears_what_is_inside() {
    let Nested { near: _near, mut far, pool, _tasks } = nested(1 << 16).await;
    soon(pool.close()).await;
    let error = soon(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn retired_connections_keep_their_streams_and_take_no_new_ones() {
    let pool: Pool<Infallible> = Pool::new(Settings::default());
    let (dialled_sender, mut dialled) = mpsc::unbounded_channel();
    let open = async || {
        let dial = || {
            let (near, far) = duplex(1 << 16);
            dialled_sender.send(far).unwrap();
            async { Ok(near) }
        };
        soon(pool.open(&key(), &to("10.0.0.1:80"), dial)).await
    };
    let (streams_sender, mut streams) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let serve = async |io: DuplexStream, sender: mpsc::UnboundedSender<TunnelIo>| {
        let mut tunnel = ServerTunnel::accept(io, &Settings::default(), PATIENCE).await.unwrap();
        while let Ok(Some(incoming)) = tunnel.next().await {
            sender.send(incoming.accept(HeaderMap::new()).unwrap().into_io()).unwrap();
        }
    };
    let acceptor = async {
        let mut connections = 0;
        loop {
            tokio::select! {
                io = dialled.recv() => {
                    connections += 1;
                    tasks.spawn(serve(io.unwrap(), streams_sender.clone()));
                }
                _ = tokio::time::sleep(Duration::from_secs(1)) => return connections,
            }
        }
    };
    let story = async {
        let mut first = open().await.unwrap().0.into_io();
        let _second = open().await.unwrap();
        pool.retire_all();
        let _third: Result<_, OpenError<Infallible>> = open().await;
        first.write_all(b"x").await.unwrap();
        let mut at_server = soon(streams.recv()).await.unwrap();
        assert_eq!(soon(at_server.read_u8()).await.unwrap(), b'x');
        first
    };
    let (connections, _first) = tokio::join!(acceptor, story);
    assert_eq!(connections, 2, "one before, one after");
}
