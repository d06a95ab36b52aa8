//! The rules in a real kernel. Every test makes network namespaces of its own, which
//! needs root and `nft`; without them the tests fail and say so.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

mod blocked;
mod host;
mod listing;
mod net;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod world;
