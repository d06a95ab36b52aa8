//! Cleaning up after labs that were killed, and knowing those that are alive.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::leftovers::{self, Leftovers};
use crate::state::State;

/// Folders that are being made carry this prefix until their state is in them.
pub(crate) const UNFINISHED: &str = ".new-";

/// A dead lab that was cleaned up.
#[derive(Clone, Debug)]
pub struct Swept {
    /// Its id.
    pub id: String,
    /// Its process.
    pub pid: i32,
    /// What could not be removed.
    pub leftovers: Leftovers,
}

/// A lab that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// Its process.
    pub pid: i32,
}

/// Cleans up every lab below `root` whose process is dead: processes, mounts, namespaces,
/// folder. Labs that are alive are not touched.
#[must_use]
pub fn sweep(root: &Path) -> Vec<Swept> {
    // Two at once would only report the same lab twice, but a report should be true.
    let Ok(_lock) = lock(root) else {
        return Vec::new();
    };
    let dead = labs(root).filter(|(_, state)| !state.lab.is_alive());
    dead.map(|(folder, state)| {
        leftovers::remove(&folder, &state);
        let leftovers = leftovers::observe(&folder, &state);
        let id = id_of(&folder);
        tracing::info!(id, pid = state.lab.pid, %leftovers, "swept a dead lab");
        Swept { id, pid: state.lab.pid, leftovers }
    })
    .collect()
}

/// The labs below `root` that are alive.
#[must_use]
pub fn others(root: &Path) -> Vec<Running> {
    labs(root)
        .filter(|(_, state)| state.lab.is_alive())
        .map(|(folder, state)| Running { id: id_of(&folder), pid: state.lab.pid })
        .collect()
}

fn labs(root: &Path) -> impl Iterator<Item = (PathBuf, State)> {
    let folders = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter_map(|folder| {
        let state = State::read(&folder).ok()?;
        Some((folder, state))
    })
}

fn id_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(UNFINISHED).unwrap_or(&name).to_owned()
}

fn lock(root: &Path) -> io::Result<Flock<fs::File>> {
    // The folder itself is the lock, so that none is left lying about.
    Flock::lock(fs::File::open(root)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}
