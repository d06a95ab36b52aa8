//! Generated server sides of the two services; see `crates/mesh/proto`.
#![expect(clippy::too_many_lines, reason = "generated code")]

/// Delta discovery.
pub(crate) mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// Certificates.
pub(crate) mod certificates {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}
