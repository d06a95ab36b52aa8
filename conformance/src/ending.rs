//! The signals that ask this program to end before it is done.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for them. From its making on, none of them ends the program by itself, so that
/// a lab is always removed; as one value it misses none that comes between two waits.
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Ending {
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them, and says what happened.
    pub(crate) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "asked to terminate",
            _ = self.hang_up.recv() => "the terminal was closed",
        }
    }
}
