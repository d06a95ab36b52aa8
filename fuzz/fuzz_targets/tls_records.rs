#![no_main]
//! Strangers that speak TLS badly, to both ends.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::Arbitrary;
use fuzz::tls_world::{credentials, identity};
use fuzz::wire::{End, Monologue};
use libfuzzer_sys::fuzz_target;
use ztunnel::tls;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Arbitrary)]
struct Input {
    records: Vec<Record>,
    piece: u16,
    end: End,
}

#[derive(Debug, Arbitrary)]
enum Record {
    Handshake { kind: u8, body: Vec<u8>, lie: i8 },
    Any { kind: u8, version: u16, body: Vec<u8>, lie: i8 },
    Bytes(Vec<u8>),
}

impl Record {
    fn write(&self, to: &mut Vec<u8>) {
        let (kind, version, body, lie) = match self {
            Self::Handshake { kind, body, lie } => {
                let length = (body.len() as u32).to_be_bytes();
                let head = [*kind, length[1], length[2], length[3]];
                (22, 0x0303, [&head[..], body].concat(), *lie)
            }
            Self::Any { kind, version, body, lie } => (20 + kind % 5, *version, body.clone(), *lie),
            Self::Bytes(bytes) => return to.extend(bytes),
        };
        to.push(kind);
        to.extend(version.to_be_bytes());
        to.extend((body.len() as u16).wrapping_add_signed(lie.into()).to_be_bytes());
        to.extend(body);
    }
}

fuzz_target!(|input: Input| {
    let mut bytes = Vec::new();
    input.records.iter().take(64).for_each(|record| record.write(&mut bytes));
    let io = || Monologue::new(&bytes, input.piece, input.end);
    // Who does not know a key gets nowhere.
    assert!(fuzz::run(tls::accept(credentials(), io(), DEADLINE)).is_err());
    let accepted = [identity()];
    assert!(fuzz::run(tls::connect(credentials(), &accepted, io(), PEER, DEADLINE)).is_err());
});
