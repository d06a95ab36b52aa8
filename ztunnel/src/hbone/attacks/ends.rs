//! Every way in which a peer can end a stream, and what the application hears of it.

use std::io;
use std::net::SocketAddr;

use http::HeaderMap;
use mesh::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, connect, frame, settings,
};
use super::victim::{LOOPBACK, PATIENCE, id, next_frame, request, soon};
use crate::hbone::{Pool, PoolKey, PumpError, ServerTunnel, Settings, TunnelStream, pump};

/// Which end of the tunnel is ours.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

/// What became of one direction before the reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Ended,
}

/// How a connection ended for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Everything, and then a FIN.
    All,
    Reset,
}

/// How it ended for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Well,
    /// What the application sent did not arrive.
    Cut,
    /// What it received is not all.
    Torn,
}

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;
const CONNECT_ERROR: u32 = 10;

/// A stream with an application at our end, and a peer that writes frames by hand.
struct Story {
    peer: TcpStream,
    app: TcpStream,
    pumped: JoinHandle<Result<(), PumpError>>,
}

impl Story {
    async fn begin(side: Side) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        match side {
            Side::Client => Self::of_client(listener, addr).await,
            Side::Server => Self::of_server(listener, addr).await,
        }
    }

    async fn of_client(listener: TcpListener, addr: SocketAddr) -> Self {
        let open = tokio::spawn(async move {
            let pool: Pool<io::Error> = Pool::new(Settings::default());
            let accepted: Vec<Identity> = vec![id("db")];
            let key = PoolKey { source: id("cart"), accepted, destination: addr };
            let opened = pool.open(&key, &request(), || TcpStream::connect(addr)).await;
            (pool, opened.unwrap().0)
        });
        let mut peer = soon(listener.accept()).await.unwrap().0;
        peer.write_all(&settings(&[])).await.unwrap();
        soon(peer.read_exact(&mut [0; PREFACE.len()])).await.unwrap();
        until(&mut peer, HEADERS, END_HEADERS).await;
        peer.write_all(&frame(HEADERS, END_HEADERS, 1, &[0x88])).await.unwrap();
        let (pool, stream) = soon(open).await.unwrap();
        Self::carried(peer, stream, pool).await
    }

    async fn of_server(listener: TcpListener, addr: SocketAddr) -> Self {
        let mut peer = TcpStream::connect(addr).await.unwrap();
        peer.write_all(&[PREFACE, &settings(&[]), &connect(1)].concat()).await.unwrap();
        let tcp = listener.accept().await.unwrap().0;
        let mut tunnel = ServerTunnel::accept(tcp, &Settings::default(), PATIENCE).await.unwrap();
        let incoming = soon(tunnel.next()).await.unwrap().unwrap();
        let stream = incoming.accept(HeaderMap::new()).unwrap();
        let driver = tokio::spawn(async move { while let Ok(Some(_)) = tunnel.next().await {} });
        until(&mut peer, HEADERS, END_HEADERS).await;
        Self::carried(peer, stream, driver).await
    }

    /// `alive` is kept as long as bytes are carried.
    async fn carried(
        peer: TcpStream,
        mut stream: TunnelStream,
        alive: impl Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let pumped = tokio::spawn(async move {
            let result = pump(&far, &mut stream, |_, _| ()).await;
            if result.is_err() {
                far.set_zero_linger().unwrap();
            }
            drop((stream, alive));
            result
        });
        Self { peer, app, pumped }
    }

    async fn end(mut self, received: Way, sent: Way, code: Option<u32>) -> (Heard, Told) {
        if sent == Way::Ended {
            self.app.shutdown().await.unwrap();
            until(&mut self.peer, DATA, END_STREAM).await;
        }
        let flags = if received == Way::Ended { END_STREAM } else { 0 };
        // In one piece, so that the reset is there before anybody has looked at the end.
        let mut last_words = frame(DATA, flags, 1, b"answer");
        if let Some(code) = code {
            last_words.extend(frame(RST_STREAM, 0, 1, &code.to_be_bytes()));
        }
        self.peer.write_all(&last_words).await.unwrap();
        let mut text = String::new();
        let heard = match soon(self.app.read_to_string(&mut text)).await {
            Ok(_) => Heard::All,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                Heard::Reset
            }
        };
        assert!(heard == Heard::Reset || text == "answer", "an end after {text:?}");
        let told = match soon(self.pumped).await.unwrap() {
            Ok(()) => Told::Well,
            Err(PumpError::Tunnel(_)) => Told::Cut,
            Err(PumpError::Torn(_)) => Told::Torn,
            Err(PumpError::Application(error)) => panic!("the application did nothing: {error}"),
        };
        (heard, told)
    }
}

/// Reads up to a frame of this kind with this flag.
async fn until(peer: &mut TcpStream, kind: u8, flag: u8) {
    loop {
        let (found, flags, ..) = soon(next_frame(peer)).await.unwrap();
        if found == kind && flags & flag != 0 {
            return;
        }
    }
}

#[tokio::test]
async fn only_the_peers_end_of_a_stream_is_an_end_for_the_application() {
    use Way::{Ended, Open};
    let polite = [NO_ERROR, CANCEL];
    let rude = [INTERNAL_ERROR, CONNECT_ERROR];
    let mut cases = vec![(Ended, Ended, None, (Heard::All, Told::Well))];
    for code in polite.into_iter().chain(rude).map(Some) {
        cases.push((Open, Open, code, (Heard::Reset, Told::Torn)));
        cases.push((Open, Ended, code, (Heard::Reset, Told::Torn)));
        cases.push((Ended, Ended, code, (Heard::All, Told::Well)));
    }
    cases.extend(polite.map(|code| (Ended, Open, Some(code), (Heard::All, Told::Well))));
    cases.extend(rude.map(|code| (Ended, Open, Some(code), (Heard::All, Told::Cut))));
    for side in [Side::Client, Side::Server] {
        for (received, sent, code, expected) in cases.clone() {
            let found = Story::begin(side).await.end(received, sent, code).await;
            assert_eq!(found, expected, "{side:?}: received {received:?}, sent {sent:?}, {code:?}");
        }
    }
}
