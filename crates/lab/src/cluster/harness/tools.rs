//! Where the programs of a cluster are. Those that are built from Go modules lie in a folder
//! for each group, which `scripts/cluster-tools` fills; the others come with the system.

use std::path::{Path, PathBuf};

use crate::process::find_program;

/// The folder of built programs.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
}

/// A program that is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ToolError {
    /// To be built.
    #[error("{0} does not exist; build it with scripts/cluster-tools")]
    NotBuilt(PathBuf),
    /// To be installed.
    #[error("{program} is not installed (Debian: {package}); scripts/cluster-tools installs it")]
    NotInstalled {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
}

impl Tools {
    /// Tools below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The program `name` of a group, for example `kubernetes` and `kubelet`.
    ///
    /// # Errors
    /// [`ToolError::NotBuilt`].
    pub fn built(&self, group: &str, name: &str) -> Result<PathBuf, ToolError> {
        let path = self.folder.join(group).join(name);
        // The group is a link to the folder of one state of its module.
        match path.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            _ => Err(ToolError::NotBuilt(path)),
        }
    }

    /// The version of what a group is about, as `scripts/cluster-tools` has written it down.
    #[must_use]
    pub fn version(&self, group: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join(group).join("VERSION")).ok()?;
        Some(text.trim().to_owned()).filter(|version| !version.is_empty())
    }

    /// A program of the system.
    ///
    /// # Errors
    /// [`ToolError::NotInstalled`].
    pub fn system(
        &self,
        program: &'static str,
        package: &'static str,
    ) -> Result<PathBuf, ToolError> {
        find_program(program).ok_or(ToolError::NotInstalled { program, package })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let tools = Tools::new(folder.path());
        let told = tools.built("kubernetes", "kubelet").unwrap_err().to_string();
        assert!(told.contains("kubernetes/kubelet") && told.contains("cluster-tools"), "{told}");
        let told = tools.system("no-such-program", "some-package").unwrap_err().to_string();
        assert!(told.contains("some-package"), "{told}");
        std::fs::create_dir(folder.path().join("kubernetes")).unwrap();
        std::fs::write(folder.path().join("kubernetes/kubelet"), "").unwrap();
        assert!(tools.built("kubernetes", "kubelet").is_ok());
    }
}
