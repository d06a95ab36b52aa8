//! Namespaces with a path, for those who make pods: the lab and tests.

use std::fmt;
use std::path::{Path, PathBuf};

use netns_rs::{Env, NetNs};

use crate::pod::{NetnsError, PodNetns};

/// The folder in which a lab keeps its namespaces.
#[derive(Clone, Debug)]
struct Folder(PathBuf);

impl Env for Folder {
    fn persist_dir(&self) -> PathBuf {
        self.0.clone()
    }
}

/// A namespace bound to a file, which other programs can open by its path. Removed when
/// dropped; it lives on while anybody holds a descriptor.
pub struct NamedNetns {
    named: Option<NetNs<Folder>>,
    path: PathBuf,
    netns: PodNetns,
}

impl NamedNetns {
    /// Makes the namespace `name` in `folder`, which is created when absent and becomes a
    /// mount point.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when the name is taken or privileges are missing.
    pub fn create(folder: &Path, name: &str) -> Result<Self, NetnsError> {
        let named = NetNs::new_with_env(name, Folder(folder.to_owned())).map_err(|error| {
            NetnsError::Open {
                path: folder.join(name).display().to_string(),
                reason: error.to_string(),
            }
        })?;
        let path = named.path().to_owned();
        let netns = PodNetns::open(&path)?;
        Ok(Self { named: Some(named), path, netns })
    }

    /// The path that other programs open.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle of the namespace.
    #[must_use]
    pub fn netns(&self) -> &PodNetns {
        &self.netns
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if let Some(named) = self.named.take() {
            // Nobody is left to tell; a lab's sweep finds what stayed.
            let _ = named.remove();
        }
    }
}

impl fmt::Debug for NamedNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedNetns").field("path", &self.path).field("netns", &self.netns).finish()
    }
}
