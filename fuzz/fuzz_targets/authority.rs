#![no_main]
//! The authority of a CONNECT leads to the pod's own address or nowhere.

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use ztunnel::proxy::fuzzing::target;

fuzz_target!(|input: (Option<String>, IpAddr, bool, u16)| {
    let (text, local, own, port) = input;
    // Most random texts are no address at all.
    let own = own.then(|| std::net::SocketAddr::new(local, port).to_string());
    for text in [text, own] {
        let Ok(target) = target(text.as_deref(), local) else { continue };
        assert_eq!(target.ip(), local.to_canonical());
        assert!(!target.ip().is_loopback() && !target.ip().is_unspecified());
        assert!(target.port() != 0 && !zds::PROXY_PORTS.contains(&target.port()));
    }
});
