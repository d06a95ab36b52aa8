//! What is known about the connection to a peer besides its streams.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the socket, the task that drives the connection, and those who open streams.
#[derive(Debug, Default)]
pub(super) struct Line {
    heard: AtomicU64,
}

impl Line {
    /// Bytes that have come from the peer.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// So many more have come.
    pub(super) fn hear(&self, bytes: usize) {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
