//! The fence and its sockets in a real kernel. Every test makes namespaces of its own,
//! which needs root; without it the tests fail and say so.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

mod fence;
mod identity;
mod listeners;
mod named;
mod sockets;
mod support;
mod visit;
mod workplace;
