#![no_main]
//! A file of revocation lists, and a certificate that is looked up in it.

use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use fuzz::Edits;
use fuzz::tls_world::{LEAF, LIST, ROOT, certificate, list};
use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use ztunnel::tls::{Revocation, RevocationError};

#[derive(Debug, Arbitrary)]
enum File {
    Der(Edits),
    Pem(Edits),
    Two(Edits),
    Bytes(Vec<u8>),
}

fn path() -> &'static std::path::Path {
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        std::env::temp_dir().join(format!("fuzz-revocation-{}", std::process::id()))
    })
}

fn load(bytes: &[u8]) -> Result<Revocation, RevocationError> {
    std::fs::write(path(), bytes).expect("a place for a file");
    let revocation = Revocation::open(path(), &mut Registry::default());
    std::fs::remove_file(path()).expect("it was written");
    revocation
}

fuzz_target!(
    init: { assert!(load(LIST.as_bytes()).is_ok() && load(&list()).is_ok()) },
    |input: (File, Edits)| {
        let (file, edits) = input;
        let bytes = match file {
            File::Der(edits) => edits.apply(&list()),
            File::Pem(edits) => edits.apply(LIST.as_bytes()),
            File::Two(edits) => [LIST.as_bytes(), &edits.apply(LIST.as_bytes())].concat(),
            File::Bytes(bytes) => bytes,
        };
        let Ok(revocation) = load(&bytes) else { return };
        let mut roots = RootCertStore::empty();
        roots.add(certificate(ROOT)).expect("our own");
        let (roots, leaf) = (Arc::new(roots), certificate(LEAF));
        let spoiled = edits.apply(&leaf).into();
        for chain in [vec![leaf, certificate(ROOT)], vec![spoiled, certificate(ROOT)]] {
            let _ = revocation.revoked(&chain, &roots).map(|found| found.to_string());
        }
    }
);
