//! Servers that mean harm.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::frames::{
    DATA, END_HEADERS, GOAWAY, HEADERS, PING, PUSH_PROMISE, connect_block, frame, header, settings,
    split_headers, then,
};
use super::victim::{LOOPBACK, PATIENCE, Victim, id, request, soon};
use crate::hbone::{OpenError, Pool, PoolKey, Settings, TunnelStream};
use crate::tls::test_ca::TestCa;
use crate::tls::{self, TlsError};

/// A server that, whatever it is asked, says this to everybody.
async fn villain(ca: &TestCa, says: Vec<u8>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (mut tasks, ca) = (JoinSet::new(), ca.clone());
    tasks.spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (credentials, says) = (ca.credentials(&id("db")), says.clone());
            served.spawn(async move {
                let (mut io, _) = tls::accept(&credentials, tcp, PATIENCE).await.unwrap();
                let mut buffer = vec![0; 1 << 16];
                // Preface, settings and credit are 70 bytes; what follows is the request.
                let mut read = 0;
                while read <= 70 {
                    match io.read(&mut buffer).await {
                        Ok(more @ 1..) => read += more,
                        _ => return,
                    }
                }
                let _ = io.write_all(&says).await;
                let _ = io.flush().await;
                while let Ok(1..) = io.read(&mut buffer).await {}
            });
        }
    });
    (addr, tasks)
}

async fn open(
    pool: &Pool<TlsError>,
    ca: &TestCa,
    addr: SocketAddr,
) -> Result<TunnelStream, OpenError<TlsError>> {
    let key = PoolKey { source: id("cart"), accepted: vec![id("db")], destination: addr };
    let dial = || {
        let ca = ca.clone();
        async move {
            let tcp = TcpStream::connect(addr).await.unwrap();
            let credentials = ca.credentials(&id("cart"));
            Ok(tls::connect(&credentials, &[id("db")], tcp, LOOPBACK, PATIENCE).await?.0)
        }
    };
    soon(pool.open(&key, &request(), dial)).await.map(|(stream, _)| stream)
}

fn hello() -> Vec<u8> {
    settings(&[])
}

/// Status 200.
fn yes() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &[0x88])
}

#[tokio::test]
async fn an_answer_that_breaks_the_rules_is_an_error_of_that_peer_only() {
    let mut victim = Victim::start().await;
    let mut large = vec![0x88];
    header("x", &[b'a'; 30_000], &mut large);
    let push = [&2_u32.to_be_bytes()[..], &connect_block("10.0.0.1:80")].concat();
    let gone = [0_u32.to_be_bytes(), 11_u32.to_be_bytes()].concat();
    let cases = [
        ("garbage", vec![0xff; 1000]),
        ("HTTP/1", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("push", then(hello(), &frame(PUSH_PROMISE, END_HEADERS, 1, &push))),
        ("large headers", then(hello(), &split_headers(1, &large))),
        ("no status", then(hello(), &frame(HEADERS, END_HEADERS, 1, &[]))),
        ("gone", then(hello(), &frame(GOAWAY, 0, 0, &gone))),
        ("data first", then(hello(), &frame(DATA, 0, 1, b"x"))),
        ("a stream of its own", then(hello(), &frame(HEADERS, END_HEADERS, 2, &[0x88]))),
    ];
    for (what, says) in cases {
        let (addr, _tasks) = villain(&victim.ca, says).await;
        let error = open(&victim.pool, &victim.ca, addr).await.err();
        let error = error.unwrap_or_else(|| panic!("{what}: accepted"));
        assert!(
            matches!(error, OpenError::Request(_) | OpenError::Handshake(_)),
            "{what}: {error:?}"
        );
    }
    victim.assert_unharmed().await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let settings = Settings { response_deadline: Duration::from_secs(1), ..Settings::default() };
    let mut victim = Victim::start_with(settings, PATIENCE).await;
    let (addr, _tasks) = villain(&victim.ca, hello()).await;
    let error = open(&victim.pool, &victim.ca, addr).await.unwrap_err();
    assert!(matches!(error, OpenError::Deadline), "{error:?}");
    victim.assert_unharmed().await;
}

#[tokio::test]
async fn more_data_than_was_allowed_breaks_the_stream() {
    let mut victim = Victim::start().await;
    let settings =
        Settings { stream_window: 65_535, connection_window: 1 << 20, ..Settings::default() };
    let pool = Pool::new(settings);
    let flood = frame(DATA, 0, 1, &[0; 16_384]).repeat(8);
    let (addr, _tasks) = villain(&victim.ca, then(then(hello(), &yes()), &flood)).await;
    let mut io = open(&pool, &victim.ca, addr).await.unwrap().into_io();
    // What is read gives credit only afterwards: so first let it all come.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut all = Vec::new();
    let error = soon(io.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(all.len() <= 65_535);
    victim.assert_unharmed().await;
}

#[tokio::test]
async fn floods_do_not_disturb_other_connections() {
    let mut victim = Victim::start().await;
    let floods = [
        frame(PING, 0, 0, &[1; 8]).repeat(50_000),
        settings(&[(1, 4096)]).repeat(50_000),
        then(yes(), &frame(DATA, 0, 1, &[]).repeat(50_000)),
        then(yes(), &frame(DATA, 0, 1, b"x").repeat(50_000)),
    ];
    for flood in floods {
        let (addr, _tasks) = villain(&victim.ca, then(hello(), &flood)).await;
        let pool = Pool::new(Settings {
            response_deadline: Duration::from_secs(2),
            ..Settings::default()
        });
        // Whether there is a stream or not is the villain's business.
        let _ = open(&pool, &victim.ca, addr).await;
        victim.assert_unharmed().await;
    }
}
