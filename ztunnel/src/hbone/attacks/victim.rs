//! Who is attacked: a server with applications behind it, and its honest client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frames::{GOAWAY, PREFACE, settings};
use crate::hbone::{Connect, Pool, PoolKey, ServerTunnel, Settings, TunnelStream, pump};
use crate::tls::test_ca::TestCa;
use crate::tls::{self, TlsError};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Kernel buffers of attackers' connections: next to nothing, so that what is counted is
/// what we keep.
const KERNEL: u32 = 16 << 10;

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

pub(super) fn id(name: &str) -> Identity {
    Identity::new("", "shop", name).unwrap()
}

pub(super) fn request() -> Connect {
    Connect { authority: "10.0.0.1:80".to_owned(), headers: HeaderMap::new() }
}

/// What happened to an attacker's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Ended, with this code.
    GoAway(u32),
    /// Ended without a word.
    Closed,
}

/// What the tasks of a victim count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Streams that were handed out.
    pub(super) streams: AtomicUsize,
    /// Connections that have ended.
    pub(super) ended: AtomicUsize,
    /// Bytes that applications got rid of.
    pub(super) sent: AtomicUsize,
}

pub(super) struct Victim {
    pub(super) ca: TestCa,
    pub(super) addr: SocketAddr,
    pub(super) counts: Arc<Counts>,
    pub(super) pool: Pool<TlsError>,
    honest: (TcpStream, JoinSet<()>),
    _tasks: JoinSet<()>,
}

impl Victim {
    /// Serves, with an honest stream that is open before anything happens.
    pub(super) async fn start() -> Self {
        Self::start_with(Settings::default(), PATIENCE).await
    }

    pub(super) async fn start_with(settings: Settings, deadline: Duration) -> Self {
        let ca = TestCa::new();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(KERNEL).unwrap();
        socket.set_send_buffer_size(KERNEL).unwrap();
        socket.bind((LOOPBACK, 0).into()).unwrap();
        let listener = socket.listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let (own_ca, counted, set) = (ca.clone(), Arc::clone(&counts), settings.clone());
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (ca, counts, settings) = (own_ca.clone(), Arc::clone(&counted), set.clone());
                served.spawn(async move {
                    serve(tcp, &ca, &settings, deadline, &counts).await;
                    counts.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        let pool = Pool::new(settings);
        let stream = open(&pool, &ca, addr).await;
        let honest = behind(stream).await;
        let victim = Self { ca, addr, counts, pool, honest, _tasks: tasks };
        victim.counts.streams.store(0, Ordering::SeqCst);
        victim
    }

    /// The honest connection still carries, and so does a new one.
    pub(super) async fn assert_unharmed(&mut self) {
        echo(&mut self.honest.0).await;
        let (mut fresh, _task) = behind(open(&self.pool, &self.ca, self.addr).await).await;
        echo(&mut fresh).await;
        let other = Pool::new(Settings::default());
        let (mut fresh, _task) = behind(open(&other, &self.ca, self.addr).await).await;
        echo(&mut fresh).await;
    }

    pub(super) async fn attacker(&self) -> Attacker {
        self.attacker_with(&[]).await
    }

    /// An attacker that has said hello, with these settings.
    pub(super) async fn attacker_with(&self, pairs: &[(u16, u32)]) -> Attacker {
        let mut attacker = self.stranger().await;
        attacker.io.write_all(PREFACE).await.unwrap();
        attacker.io.write_all(&settings(pairs)).await.unwrap();
        attacker
    }

    /// One that has not.
    pub(super) async fn stranger(&self) -> Attacker {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(KERNEL).unwrap();
        socket.set_send_buffer_size(KERNEL).unwrap();
        let tcp = socket.connect(self.addr).await.unwrap();
        let credentials = self.ca.credentials(&id("thief"));
        let io = tls::connect(&credentials, &[id("db")], tcp, LOOPBACK, PATIENCE).await;
        Attacker { io: io.unwrap().0 }
    }

    pub(super) async fn until_ended(&self, connections: usize) {
        soon(async {
            while self.counts.ended.load(Ordering::SeqCst) < connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn open(pool: &Pool<TlsError>, ca: &TestCa, addr: SocketAddr) -> TunnelStream {
    let accepted = vec![id("db")];
    let key = PoolKey { source: id("cart"), accepted, destination: addr };
    let dial = || {
        let ca = ca.clone();
        async move {
            let tcp = TcpStream::connect(addr).await.unwrap();
            let credentials = ca.credentials(&id("cart"));
            Ok(tls::connect(&credentials, &[id("db")], tcp, LOOPBACK, PATIENCE).await?.0)
        }
    };
    soon(pool.open(&key, &request(), dial)).await.unwrap().0
}

/// An application whose connection goes through the stream.
pub(super) async fn behind(mut stream: TunnelStream) -> (TcpStream, JoinSet<()>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(pump(&far, &mut stream, |_, _| ()).await) });
    (near, tasks)
}

pub(super) async fn echo(app: &mut TcpStream) {
    app.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    soon(app.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ping");
}

async fn serve(
    tcp: TcpStream,
    ca: &TestCa,
    settings: &Settings,
    deadline: Duration,
    counts: &Arc<Counts>,
) {
    let Ok((io, _)) = tls::accept(&ca.credentials(&id("db")), tcp, deadline).await else {
        return;
    };
    let Ok(mut tunnel) = ServerTunnel::accept(io, settings, deadline).await else {
        return;
    };
    let mut streams = JoinSet::new();
    while let Ok(Some(incoming)) = tunnel.next().await {
        counts.streams.fetch_add(1, Ordering::SeqCst);
        match incoming.authority() {
            Some("10.0.0.1:80") => {
                let stream = incoming.accept(HeaderMap::new());
                streams.spawn(async move {
                    let Ok(stream) = stream else { return };
                    let (app, mut task) = behind(stream).await;
                    let (mut read, mut write) = app.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    drop(write);
                    task.join_next().await;
                });
            }
            // An application that talks without end.
            Some("10.0.0.1:19") => {
                let (stream, counts) = (incoming.accept(HeaderMap::new()), Arc::clone(counts));
                streams.spawn(async move {
                    let Ok(stream) = stream else { return };
                    let (mut app, _task) = behind(stream).await;
                    while let Ok(written) = app.write(&[7; 16 << 10]).await {
                        counts.sent.fetch_add(written, Ordering::SeqCst);
                    }
                });
            }
            _ => incoming.refuse(StatusCode::BAD_REQUEST),
        }
        while streams.try_join_next().is_some() {}
    }
}

pub(super) struct Attacker {
    pub(super) io: tls::Stream<TcpStream>,
}

impl Attacker {
    /// Sends all of this while it reads, and tells how it ends.
    pub(super) async fn strike(self, bytes: impl IntoIterator<Item = Vec<u8>>) -> Fate {
        let (read, mut write) = tokio::io::split(self.io);
        let send = async {
            for piece in bytes {
                if write.write_all(&piece).await.is_err() {
                    break;
                }
            }
            let _ = write.flush().await;
            std::future::pending::<()>().await;
        };
        soon(async {
            tokio::select! {
                fate = fate(read) => fate,
                () = send => unreachable!("never ends"),
            }
        })
        .await
    }

    /// Sends without ever reading, until nothing more is taken or all is sent; tells how
    /// much was taken.
    pub(super) async fn push(&mut self, bytes: impl IntoIterator<Item = Vec<u8>>) -> usize {
        let mut taken = 0;
        for piece in bytes {
            let sent = async {
                self.io.write_all(&piece).await?;
                self.io.flush().await
            };
            match timeout(Duration::from_secs(3), sent).await {
                Ok(Ok(())) => taken += piece.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        taken
    }

    /// The next frame: kind, flags, stream, payload.
    pub(super) async fn frame(&mut self) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
        next_frame(&mut self.io).await
    }
}

async fn fate(mut io: impl tokio::io::AsyncRead + Unpin) -> Fate {
    let mut fate = Fate::Closed;
    while let Ok((kind, _, _, payload)) = next_frame(&mut io).await {
        if kind == GOAWAY {
            fate = Fate::GoAway(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    fate
}

pub(super) async fn next_frame(
    io: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    io.read_exact(&mut payload).await?;
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    Ok((head[3], head[4], stream, payload))
}
