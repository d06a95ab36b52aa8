#![no_main]
//! What a server may say to a tunnel's client, TLS left out: every request has an end.

use std::time::Duration;

use fuzz::frames::Talk;
use fuzz::wire::Monologue;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use ztunnel::hbone::{Connect, Pool, Settings};

/// The application's patience; the transport's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(3600);

async fn dial(talk: Talk) {
    let io = Monologue::new(&talk.of_server(), talk.piece, talk.end);
    let pool: Pool<std::io::Error> = Pool::new(Settings::default());
    let connect = Connect { authority: "10.0.0.7:80".to_owned(), headers: HeaderMap::new() };
    let Ok((stream, _)) = pool.open_once(io, &connect).await else { return };
    let talk = async {
        let mut io = stream.into_io();
        let _ = io.write_all(b"hello").await;
        let _ = io.flush().await;
        let mut all = Vec::new();
        let _ = io.read_to_end(&mut all).await;
    };
    timeout(PATIENCE, talk).await.expect("a dead peer is found out");
}

fuzz_target!(|talk: Talk| fuzz::run(dial(talk)));
