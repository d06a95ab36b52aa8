#![no_main]
//! The chain that a CA answers: never one for a key that is not ours.

use arbitrary::Arbitrary;
use fuzz::Edits;
use fuzz::tls_world::{LEAF, ROOT, certificate, identity};
use libfuzzer_sys::fuzz_target;
use ztunnel::identity::fuzzing::certify;
use ztunnel::tls::Terms;

#[derive(Debug, Arbitrary)]
enum Part {
    Leaf,
    Root,
    /// The text is spoiled.
    Text(bool, Edits),
    /// What is in it is spoiled.
    Inside(bool, Edits),
    Bytes(Vec<u8>),
}

impl Part {
    fn text(&self) -> String {
        let of = |root: &bool| if *root { ROOT } else { LEAF };
        match self {
            Self::Leaf => LEAF.to_owned(),
            Self::Root => ROOT.to_owned(),
            Self::Text(root, edits) => {
                String::from_utf8_lossy(&edits.apply(of(root).as_bytes())).into_owned()
            }
            Self::Inside(root, edits) => pem(&edits.apply(&certificate(of(root)))),
            Self::Bytes(bytes) => pem(bytes),
        }
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fuzz_target!(
    init: {
        let reason = certify(&identity(), &[LEAF.into(), ROOT.into()], &Terms::default(), &[]);
        let reason = reason.expect_err("a leaf for another key");
        assert!(reason.ends_with("it is not for the key that was sent"), "{reason}");
    },
    |input: (Vec<Vec<Part>>, bool)| {
        let (chain, rotated) = input;
        let chain: Vec<String> = chain
            .iter()
            .take(4)
            .map(|parts| parts.iter().take(4).map(Part::text).collect())
            .collect();
        let earlier = if rotated { vec![certificate(ROOT)] } else { Vec::new() };
        assert!(certify(&identity(), &chain, &Terms::default(), &earlier).is_err());
    }
);
