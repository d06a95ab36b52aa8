//! What many streams have to say leaves together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::HeaderMap;
use mesh::Identity;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Connect, Pool, PoolKey, ServerTunnel, Settings, TunnelIo};
use crate::tls::test_ca::TestCa;
use crate::tls::{accept, connect};

const PATIENCE: Duration = Duration::from_secs(60);
const STREAMS: usize = 50;

/// Counts what would be system calls.
struct Counting {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn frames_of_one_turn_are_one_write() {
    let ca = TestCa::new();
    let id = Identity::new("", "shop", "both").unwrap();
    let (credentials, accepted) = (ca.credentials(&id), [id.clone()]);
    let writes = Arc::new(AtomicUsize::new(0));
    let (near, far) = duplex(1 << 20);
    let near = Counting { io: near, writes: Arc::clone(&writes) };
    let (sender, mut served) = mpsc::unbounded_channel();
    let server = credentials.clone();
    tokio::spawn(async move {
        let io = accept(&server, far, PATIENCE).await.unwrap().0;
        let mut tunnel = ServerTunnel::accept(io, &Settings::default(), PATIENCE).await.unwrap();
        while let Ok(Some(incoming)) = tunnel.next().await {
            sender.send(incoming.accept(HeaderMap::new()).unwrap().into_io()).unwrap();
        }
    });
    let ip = "127.0.0.1".parse().unwrap();
    let secured = connect(&credentials, &accepted, near, ip, PATIENCE).await.unwrap().0;
    let secured = std::sync::Mutex::new(Some(secured));
    let pool: Pool<io::Error> = Pool::new(Settings::default());
    let key = PoolKey { source: id, accepted: Vec::new(), destination: (ip, 1).into() };
    let request = Connect { authority: "10.0.0.1:80".to_owned(), headers: HeaderMap::new() };
    let dial = || {
        let io = secured.lock().unwrap().take().expect("dialled once");
        async move { Ok(io) }
    };
    let mut streams: Vec<(TunnelIo, TunnelIo)> = Vec::new();
    for _ in 0..STREAMS {
        let opened = timeout(PATIENCE, pool.open(&key, &request, dial)).await.unwrap();
        streams.push((opened.unwrap().0.into_io(), served.recv().await.unwrap()));
    }
    // Whatever is still on its way: wait until nothing is written any more.
    let mut before = usize::MAX;
    while before != writes.load(Ordering::SeqCst) {
        before = writes.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The driver gets its turn only after all of these.
    for (near, _) in &mut streams {
        near.write_all(&[1; 300]).now_or_never().expect("there is room").unwrap();
    }
    for (_, far) in &mut streams {
        let mut message = [0; 300];
        timeout(PATIENCE, far.read_exact(&mut message)).await.unwrap().unwrap();
    }
    let after = writes.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&after), "{after} writes for {STREAMS} frames");
}
