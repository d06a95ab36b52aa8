//! The serving side.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{AppError, MAX_LINE};
use crate::place::Place;

/// How many peers a server remembers; later ones are only counted.
const MAX_PEERS: usize = 65_536;

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    peers: Vec<SocketAddr>,
}

/// A listening app. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(place: &Place, port: u16) -> Result<Self, AppError> {
        let step = || format!("{}: listen on port {port}", place.name());
        let failed = |error| AppError::new(step(), &error);
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = place.listen(addr).await.map_err(failed)?;
        Self::on(listener).map_err(failed)
    }

    /// Answers on a socket that listens and does not block.
    pub(crate) fn on(listener: std::net::TcpListener) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Ok(Self { port, seen, accepting })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// Who connected, in order, as the app saw it; the first 65536.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        lock(&self.seen).peers.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    let mut talks = JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            return;
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        {
            let mut seen = lock(&seen);
            seen.connections += 1;
            if seen.peers.len() < MAX_PEERS {
                seen.peers.push(peer);
            }
        }
        talks.spawn(answer(stream, peer));
        while talks.try_join_next().is_some() {}
    }
}

/// Answers until the peer has said all, or the connection breaks: either way it is over.
async fn answer(mut stream: TcpStream, peer: SocketAddr) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(length) if length > 0) || line.last() != Some(&b'\n') {
            return;
        }
        let mut reply = format!("{peer}|{number}|").into_bytes();
        reply.extend_from_slice(&line);
        if writer.write_all(&reply).await.is_err() {
            return;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
