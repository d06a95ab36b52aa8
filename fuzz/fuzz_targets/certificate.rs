#![no_main]
//! The name in a certificate, and its revocation, before any signature was looked at.

use fuzz::Edits;
use fuzz::tls_world::{LEAF, certificate, identity};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use ztunnel::tls::identity_of;

fuzz_target!(
    init: { assert_eq!(identity_of(&certificate(LEAF)), Ok(identity())) },
    |input: (Edits, Option<Vec<u8>>)| {
        let (edits, bytes) = input;
        let leaf = certificate(LEAF);
        for der in [edits.apply(&leaf), bytes.unwrap_or_default()] {
            if let Ok(found) = identity_of(&CertificateDer::from(&*der)) {
                let text = found.to_string();
                assert!(text.len() <= 2048);
                // Nothing was unescaped on the way.
                assert!(der.windows(text.len()).any(|part| part == text.as_bytes()));
            }
        }
    }
);
