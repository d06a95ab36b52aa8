#![no_main]
//! Answers of resolvers: to be passed on, and to ztunnel's own questions.

use fuzz::Edits;
use libfuzzer_sys::fuzz_target;
use ztunnel::dns::Family;
use ztunnel::dns::fuzzing::{addresses, answers};

/// far.example.org is another name of x.example.org, which has two addresses.
const ANSWER: &[u8] = b"\x00\x07\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00\
    \x03far\x07example\x03org\x00\x00\x01\x00\x01\
    \xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x1e\x00\x04\x01x\xc0\x10\
    \xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x0a\x00\x00\x01\
    \xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x0a\x00\x00\x02";

const QUERY: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x03far\x07example\x03org\x00\x00\x01\x00\x01";

fuzz_target!(
    init: {
        let found = addresses(ANSWER, "far.example.org.", Family::V4).expect("a good answer");
        assert_eq!(found.len(), 2);
        assert!(answers(ANSWER, QUERY));
    },
    |input: (Edits, Option<Vec<u8>>, bool)| {
        let (edits, bytes, v6) = input;
        let family = if v6 { Family::V6 } else { Family::V4 };
        for answer in [edits.apply(ANSWER), bytes.unwrap_or_default()] {
            if let Some(found) = addresses(&answer, "far.example.org.", family) {
                assert!(!found.is_empty() && found.iter().all(|ip| ip.is_ipv6() == v6));
            }
            if answers(&answer, QUERY) {
                assert_eq!(answer[..2], QUERY[..2]);
            }
        }
    }
);
