//! New streams to peers that have vanished, or that take their time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::tests::{PATIENCE, accept, client, key, open, request, soon, world};
use super::{OpenError, Pool, ServerTunnel, Settings};

/// Quick to doubt, and slow to give up: what happens within [`PATIENCE`] was not the
/// keep-alive.
fn doubting() -> Settings {
    Settings {
        doubt_after: Duration::from_millis(200),
        ping_interval: PATIENCE * 2,
        response_deadline: PATIENCE * 2,
        ..Settings::default()
    }
}

/// What stands between a client and its peer, and may fall silent.
struct Path {
    addr: SocketAddr,
    /// Connections up to this number carry nothing.
    silent: watch::Sender<usize>,
}

impl Path {
    async fn to(peer: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (silent, watched) = watch::channel(0);
        tokio::spawn(async move {
            for number in 1.. {
                let (mut near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(number, watched.clone(), async move {
                    let mut far = TcpStream::connect(peer).await?;
                    copy_bidirectional(&mut near, &mut far).await
                }));
            }
        });
        Self { addr, silent }
    }
}

/// Polls `moving` while the connection is not silent.
async fn carry<T>(
    number: usize,
    mut silent: watch::Receiver<usize>,
    moving: impl Future<Output = T>,
) {
    let mut moving = std::pin::pin!(moving);
    loop {
        if silent.wait_for(|silent| *silent < number).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = silent.changed() => if changed.is_err() { return },
            _ = &mut moving => return,
        }
    }
}

#[tokio::test]
async fn a_new_stream_finds_out_soon_that_its_peer_has_vanished_and_is_opened_elsewhere() {
    let (peer, listener, pool) = world(doubting()).await;
    let path = Path::to(peer.addr).await;
    let mut near = client(&pool, path.addr).await;
    let mut far = accept(&listener).await;
    near.write_all(b"x").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'x');

    path.silent.send_replace(1);
    let several = futures_util::future::join_all((0..3).map(|_| open(&pool, path.addr)));
    assert!(several.await.iter().all(Result::is_ok));
    assert_eq!(peer.connections(), 2, "they share the new one");

    // It was only slow: what was open goes on.
    path.silent.send_replace(0);
    near.write_all(b"y").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'y');
}

#[tokio::test]
async fn the_second_connection_is_not_doubted() {
    let (peer, _listener, pool) = world(doubting()).await;
    let path = Path::to(peer.addr).await;
    // The first is silent from the start; the second while it is asked.
    path.silent.send_replace(2);
    let opening = open(&pool, path.addr);
    tokio::pin!(opening);
    let in_time = timeout(Duration::from_secs(3), &mut opening).await;
    assert!(in_time.is_err(), "given up: {in_time:?}");
    path.silent.send_replace(1);
    soon(opening).await.unwrap();
    assert_eq!(peer.connections(), 1);
}

/// Its application may be slow to accept, for longer than silence is borne.
#[tokio::test]
async fn a_peer_that_takes_its_time_but_is_there_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, waiting) = (Arc::clone(&requests), Arc::clone(&answer));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (counted, waiting) = (Arc::clone(&counted), Arc::clone(&waiting));
            tokio::spawn(async move {
                let settings = Settings::default();
                let mut tunnel = ServerTunnel::accept(tcp, &settings, PATIENCE).await.unwrap();
                while let Ok(Some(incoming)) = tunnel.next().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let waiting = Arc::clone(&waiting);
                    tokio::spawn(async move {
                        waiting.acquire().await.unwrap().forget();
                        let _stream = incoming.accept(HeaderMap::new()).unwrap();
                        std::future::pending::<()>().await;
                    });
                }
            });
        }
    });
    let pool: Pool<io::Error> = Pool::new(doubting());
    let opening = open(&pool, addr);
    tokio::pin!(opening);
    let in_time = timeout(Duration::from_secs(3), &mut opening).await;
    assert!(in_time.is_err(), "{in_time:?}");
    answer.add_permits(1);
    soon(opening).await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

/// As when its node was started anew, and knows nothing of the connection.
#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_replaced_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let dialled = AtomicUsize::new(0);
    let breaking = async {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            dialled.fetch_add(1, Ordering::SeqCst);
            // Preface, settings and credit are 70 bytes; what follows is the request.
            let mut read = 0;
            while read <= 70 {
                read += tcp.read(&mut [0; 1024]).await.unwrap();
            }
            tcp.set_zero_linger().unwrap();
        }
    };
    let pool: Pool<io::Error> = Pool::new(doubting());
    let (key, request) = (key(addr), request());
    let opening = pool.open(&key, &request, || TcpStream::connect(addr));
    let opened = tokio::select! {
        opened = soon(opening) => opened,
        () = breaking => unreachable!("never ends"),
    };
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Request(_)), "{error}");
    assert_eq!(dialled.load(Ordering::SeqCst), 2);
}
