#![no_main]
//! Settings, and what stands behind them in `PROXY_CONFIG`.

use libfuzzer_sys::fuzz_target;
use ztunnel::config::{Config, Raw};

const NAMES: [&str; 24] = [
    "XDS_ADDRESS", "CA_ADDRESS", "TRUST_DOMAIN", "NETWORK", "CLUSTER_ID", "PACKET_MARK",
    "SECRET_TTL", "CONNECTION_TERMINATION_DEADLINE", "HTTP2_FRAME_SIZE",
    "HTTP2_STREAM_WINDOW_SIZE", "POOL_MAX_STREAMS_PER_CONNECTION", "POOL_UNUSED_RELEASE_TIMEOUT",
    "ZTUNNEL_WORKER_THREADS", "ADMIN_ADDR", "READINESS_ADDR", "RUST_LOG", "LOG_FORMAT",
    "IPV6_ENABLED", "CA_HEADER_X", "ISTIO_META_FOO", "XDS_MASS_REMOVAL_HOLD", "CA_ROOT_CA",
    "DNS_PROXY_ADDR", "COMPLIANCE_POLICY",
];

fuzz_target!(|input: (String, Vec<(u8, String)>)| {
    let (yaml, others) = &input;
    let named = |(at, value): &(u8, String)| (NAMES[usize::from(*at) % NAMES.len()], value.clone());
    let others: Vec<_> = others.iter().take(16).map(named).collect();
    let own = [("NODE_NAME", "n1"), ("PROXY_CONFIG", yaml.as_str())];
    let pairs = own.into_iter().chain(others.iter().map(|(name, value)| (*name, value.as_str())));
    match Config::parse(&Raw::from_pairs(pairs)) {
        Ok(config) => drop(config.summary()),
        Err(mistakes) => assert!(!mistakes.each().is_empty()),
    }
});
