#![no_main]
//! What a client may say to the inbound server, TLS left out: the connection ends, and no
//! request leads anywhere but to the pod.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fuzz::frames::Talk;
use fuzz::tls_world::identity;
use fuzz::wire::Monologue;
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use mesh::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use ztunnel::hbone::{Incoming, ServerTunnel, Settings, TunnelIo};
use ztunnel::proxy::fuzzing::{claims, target};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
const DEADLINE: Duration = Duration::from_secs(10);

/// An application that sends back what it gets.
async fn echo(mut io: TunnelIo) {
    let mut chunk = vec![0; 4096];
    while let Ok(bytes @ 1..) = io.read(&mut chunk).await {
        if io.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
    let _ = io.shutdown().await;
}

fn on_request(incoming: Incoming, tasks: &mut JoinSet<()>) {
    let _ = claims(incoming.headers(), &Network::from(""), &identity());
    let Ok(target) = target(incoming.authority(), LOCAL) else {
        return incoming.refuse(StatusCode::BAD_REQUEST);
    };
    assert_eq!(target.ip(), LOCAL);
    if let Ok(stream) = incoming.accept(HeaderMap::new()) {
        // One that hangs must not keep the connection.
        tasks.spawn(async { drop(tokio::time::timeout(DEADLINE, echo(stream.into_io())).await) });
    }
}

async fn serve(talk: Talk) {
    let io = Monologue::new(&talk.of_client(), talk.piece, talk.end);
    let Ok(mut tunnel) = ServerTunnel::accept(io, &Settings::default(), DEADLINE).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(done) = tasks.join_next() => done.expect("an application failed"),
            next = tunnel.next() => match next {
                Ok(Some(incoming)) => on_request(incoming, &mut tasks),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

fuzz_target!(|talk: Talk| fuzz::run(serve(talk)));
