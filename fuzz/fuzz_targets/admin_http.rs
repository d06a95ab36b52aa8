#![no_main]
//! Whoever reaches the ports of the administration: an answer or none, and levels that
//! are levels.

use arbitrary::Arbitrary;
use fuzz::wire::{End, Monologue};
use libfuzzer_sys::fuzz_target;
use ztunnel::admin::fuzzing::Idle;

#[derive(Debug, Arbitrary)]
struct Input {
    request: Request,
    piece: u16,
    end: End,
}

#[derive(Debug, Arbitrary)]
enum Request {
    Bytes(Vec<u8>),
    Logging { post: bool, query: Vec<u8> },
    Path { method: u8, path: u8, rest: Vec<u8>, headers: Vec<u8> },
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Logging { post, query } => {
                let method = if *post { "POST" } else { "GET" };
                [format!("{method} /logging?").as_bytes(), query, b" HTTP/1.1\r\n\r\n"].concat()
            }
            Self::Path { method, path, rest, headers } => {
                let method = ["GET", "POST", "HEAD", "PUT"][usize::from(method % 4)];
                let paths = ["/", "/config_dump", "/metrics", "/healthz/ready", "/quitquitquit"];
                let path = paths[usize::from(*path) % paths.len()];
                let line = format!("{method} {path}");
                [line.as_bytes(), rest, b" HTTP/1.1\r\n", headers, b"\r\n\r\n"].concat()
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let bytes = input.request.bytes();
    fuzz::run(async {
        let idle = Idle::new().expect("made of constants");
        idle.serve([(); 3].map(|()| Monologue::new(&bytes, input.piece, input.end))).await;
        let levels = idle.levels();
        assert!(levels.len() < 4096 && levels.is_ascii(), "{levels:?}");
    });
});
