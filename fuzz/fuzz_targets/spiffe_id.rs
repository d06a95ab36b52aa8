#![no_main]
//! SPIFFE ids: nothing is normalised, so what is read is what was written.

use mesh::Identity;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(identity) = text.parse::<Identity>() else { return };
    assert_eq!(identity.to_string(), text);
    let parts = [identity.trust_domain(), identity.namespace(), identity.service_account()];
    assert!(parts.iter().all(|part| !part.is_empty() && !part.contains('/')));
});
