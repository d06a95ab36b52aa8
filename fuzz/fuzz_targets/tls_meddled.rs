#![no_main]
//! Somebody on the wire between two good ends: what arrives is what was sent, or less of
//! it, and a connection that was cut is not taken for one that ended.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::Arbitrary;
use fuzz::tls_world::{credentials, identity};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use ztunnel::tls::{self, Stream};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Arbitrary)]
struct Input {
    to_server: Vec<Meddling>,
    to_client: Vec<Meddling>,
    length: u16,
    pipe: u16,
}

#[derive(Debug, Arbitrary)]
struct Meddling {
    after: u16,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum What {
    Flip(u8),
    Insert(Vec<u8>),
    Drop(u8),
    Again(u8),
    Cut,
}

/// Passes bytes on as they come, and does its things in between.
async fn meddle(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    all: Vec<Meddling>,
) -> io::Result<()> {
    let mut passed = Vec::new();
    for Meddling { after, what } in all {
        let start = passed.len();
        while passed.len() - start < usize::from(after) {
            let byte = from.read_u8().await?;
            to.write_u8(byte).await?;
            passed.push(byte);
        }
        match what {
            What::Flip(bits) => to.write_u8(from.read_u8().await? ^ bits).await?,
            What::Insert(more) => to.write_all(&more).await?,
            What::Again(count) => {
                let from = passed.len().saturating_sub(count.into());
                to.write_all(&passed[from..]).await?;
            }
            What::Drop(count) => {
                for _ in 0..count {
                    from.read_u8().await?;
                }
            }
            What::Cut => return Ok(()),
        }
    }
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

async fn send(stream: Stream<DuplexStream>, bytes: &[u8]) {
    let mut stream = stream;
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn receive(stream: Stream<DuplexStream>, expected: &[u8]) {
    let (mut stream, mut got) = (stream, Vec::new());
    let result = stream.read_to_end(&mut got).await;
    assert!(expected.starts_with(&got), "something else arrived");
    if result.is_ok() {
        assert_eq!(got.len(), expected.len(), "a cut was taken for the end");
    }
}

async fn world(input: Input) {
    let (client, near) = duplex(usize::from(input.pipe).max(1));
    let (far, server) = duplex(usize::from(input.pipe).max(1));
    let ((near_read, near_write), (far_read, far_write)) =
        (tokio::io::split(near), tokio::io::split(far));
    let bytes: Vec<u8> = (0..input.length).map(|n| n as u8).collect();
    let (sent, expected) = (bytes.clone(), bytes);
    let mut tasks = tokio::task::JoinSet::new();
    // How a direction ended shows at the ends.
    tasks.spawn(async { drop(meddle(near_read, far_write, input.to_server).await) });
    tasks.spawn(async { drop(meddle(far_read, near_write, input.to_client).await) });
    tasks.spawn(async move {
        let accepted = [identity()];
        let dialled = tls::connect(credentials(), &accepted, client, PEER, DEADLINE).await;
        let Ok((stream, _)) = dialled else { return };
        drop(tokio::time::timeout(DEADLINE, send(stream, &sent)).await);
    });
    tasks.spawn(async move {
        let Ok((stream, peer)) = tls::accept(credentials(), server, DEADLINE).await else { return };
        assert_eq!(peer.identity, identity());
        drop(tokio::time::timeout(DEADLINE, receive(stream, &expected)).await);
    });
    while let Some(done) = tasks.join_next().await {
        done.expect("no end panics");
    }
}

fuzz_target!(|input: Input| fuzz::run(world(input)));
