//! Processes that live in a namespace and do nothing, for whoever looks for namespaces by them.

use std::path::Path;

use tokio::process::Child;

use crate::place::Place;
use crate::process::{self, Job, ProcessError};

/// Longer than any scenario, and not for ever if nobody ends it.
const SECONDS: &str = "300";

/// A process in a namespace. It ends when dropped.
#[derive(Debug)]
pub struct Inhabitant {
    pid: u32,
    _child: Child,
}

impl Inhabitant {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Place {
    /// Has a process live in it.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot be started.
    pub async fn inhabit(&self) -> Result<Inhabitant, ProcessError> {
        let job = Job::of(&["sleep", SECONDS]);
        let child = process::start_logged(self, &job, Path::new("/dev/null")).await?;
        let pid = child.id().unwrap_or_default();
        Ok(Inhabitant { pid, _child: child })
    }
}
