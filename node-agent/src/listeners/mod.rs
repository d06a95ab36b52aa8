//! The in-pod listeners. They are the agent's, so that connections wait in the kernel while
//! a ztunnel is replaced or restarted:
//!
//! ```text
//! fence: bind in the pod ──► roster, for the pod's life ──dup──► ztunnel accepts
//!                               ▲          │
//!       an earlier agent's ─────┘          └── no ztunnel for the hold time:
//!       come back from ztunnel                 the doorman accepts and resets
//! ```
//!
//! A pod whose name lookups are redirected has the sockets of its name server besides. Of
//! those, several ztunnels may read at once: each lookup comes to one of them.

mod doorman;
mod held;
mod open;
mod turned_away;

pub use doorman::{Doorman, Metrics};
pub use held::{Duplicate, HeldListener, PodListeners, ReturnError};
pub use open::{OpenError, Opener};

#[cfg(test)]
mod lookups_tests;
#[cfg(test)]
mod tests;
