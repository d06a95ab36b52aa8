//! What keeps ztunnel from being ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who may have to wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The mesh view.
    ControlPlane,
    /// The session with the node agent.
    Agent,
    /// The machine, where it is what is served.
    Machine,
    /// Nothing but the end.
    End,
}

/// A board on which each part notes what it waits for; cloning shares it. Ready means
/// that nothing is noted. A part notes its first wait before the servers start.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<Part, Vec<String>>>>,
}

impl Readiness {
    /// Replaces what `part` waits for; nothing: it is ready.
    pub fn report(&self, part: Part, waiting: Vec<String>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(part, waiting);
    }

    /// Everything that is waited for, a sentence each.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.values().flatten().cloned().collect()
    }
}
