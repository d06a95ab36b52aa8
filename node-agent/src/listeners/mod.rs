//! The in-pod listeners. They are the agent's, so that connections wait in the kernel while
//! a ztunnel is replaced or restarted:
//!
//! ```text
//! fence: bind in the pod ──► roster, for the pod's life ──dup──► ztunnel accepts
//!                               ▲          │
//!       an earlier agent's ─────┘          └── no ztunnel for the hold time:
//!       come back from ztunnel                 the doorman accepts and resets
//! ```

mod doorman;
mod held;
mod open;

pub use doorman::{Doorman, Metrics};
pub use held::{HeldListener, ReturnError};
pub use open::{OpenError, Opener};

#[cfg(test)]
mod tests;
