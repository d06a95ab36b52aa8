//! What a cluster writes down about itself, for later commands and for its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::options::Family;
use crate::state::ProcessId;

/// The file in a cluster's folder.
const FILE: &str = "cluster.json";

/// A cluster, as it was last written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub name: String,
    /// Its primary CNI.
    pub primary: String,
    /// Its address families.
    pub family: Family,
    /// Its number of nodes.
    pub nodes: u8,
    /// The folder of its programs.
    pub tools: PathBuf,
    pub machines: Vec<Running>,
    /// The process through which the host reaches the API.
    pub relay: Option<ProcessId>,
}

/// A machine that has been started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    pub name: String,
    /// The process that waits for the machine's first one.
    pub launcher: ProcessId,
    /// The machine's first process; nothing of the machine outlives it.
    pub init: Option<ProcessId>,
}

impl Record {
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE))?).map_err(io::Error::other)
    }

    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join("cluster.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        fs::rename(fresh, folder.join(FILE))
    }

    /// The machine of this name.
    pub(crate) fn machine(&self, name: &str) -> Option<&Running> {
        self.machines.iter().find(|machine| machine.name == name)
    }
}

/// Folders of all clusters below `root` that have a record.
pub(crate) fn all(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.join(FILE).exists()).collect();
    found.sort();
    found
}
