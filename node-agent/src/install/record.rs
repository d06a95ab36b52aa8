//! What was installed where, for a later life of the agent that is told to install elsewhere, and
//! for the removal. Paths are the node's: an agent may see them below another folder next time.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::places::{Found, seen_from};
use crate::replace_file::{Outlives, replace_file};

/// Folders in which something of ours may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Of network configurations.
    pub conf: BTreeSet<PathBuf>,
    /// Of plugins.
    pub bin: BTreeSet<PathBuf>,
}

impl Record {
    /// Reads it. One that is not there, or damaged, says nothing.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's answer.
    pub async fn write(&self, file: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        replace_file(file, &bytes, Outlives::Process).await
    }

    /// These places too.
    #[must_use]
    pub fn with(mut self, found: &Found) -> Self {
        let on_node = |seen: &PathBuf| on_node(&found.root, seen);
        self.conf.insert(on_node(&found.conf_dir));
        self.bin.extend(found.bin_dirs.iter().map(on_node));
        self
    }

    /// Places of configurations besides those that were found, as they are seen from here.
    #[must_use]
    pub fn other_conf(&self, found: &Found) -> Vec<PathBuf> {
        let seen = self.conf.iter().map(|path| seen_from(&found.root, path));
        seen.filter(|path| *path != found.conf_dir).collect()
    }

    /// Places of plugins besides those, likewise.
    #[must_use]
    pub fn other_bin(&self, found: &Found) -> Vec<PathBuf> {
        let seen = self.bin.iter().map(|path| seen_from(&found.root, path));
        seen.filter(|path| !found.bin_dirs.contains(path)).collect()
    }

    /// Nothing of ours is in this folder of configurations any more.
    pub fn forget(&mut self, root: &Path, seen: &Path) {
        self.conf.remove(&on_node(root, seen));
    }
}

fn on_node(root: &Path, seen: &Path) -> PathBuf {
    Path::new("/").join(seen.strip_prefix(root).unwrap_or(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &str, conf: &str) -> Found {
        Found {
            root: root.into(),
            conf_dir: seen_from(Path::new(root), Path::new(conf)),
            bin_dirs: vec![seen_from(Path::new(root), Path::new("/opt/cni/bin"))],
            conf_said: String::new(),
            bin_said: String::new(),
        }
    }

    #[tokio::test]
    async fn the_next_life_knows_the_old_place_below_another_root() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("installed.json");
        assert_eq!(Record::read(&file), Record::default());
        Record::default().with(&found("/", "/etc/old")).write(&file).await.unwrap();
        let now = found("/host", "/etc/new");
        let mut record = Record::read(&file).with(&now);
        assert_eq!(record.other_conf(&now), [PathBuf::from("/host/etc/old")]);
        assert!(record.other_bin(&now).is_empty());
        record.forget(&now.root, Path::new("/host/etc/old"));
        assert!(record.other_conf(&now).is_empty());
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Record::read(&file), Record::default());
    }
}
