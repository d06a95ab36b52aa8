//! The node's root, and what of it may be changed.

use std::fs::{File, read_link};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Where it is in the pod.
const ROOT: &str = "/host";
/// Names in a path that may be changed. What has fewer, such as `/var/lib` or `/etc/cni`, is a
/// folder of the node's that others live in.
const NAMES: usize = 3;

/// The node's root, as the pod sees it.
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn of_node() -> Self {
        Self(ROOT.into())
    }

    /// A path of the node as the pod sees it.
    ///
    /// # Errors
    /// When it is not absolute, or leads back up: it could lead anywhere then. `//`, `/./` and a
    /// `/` at the end lead nowhere else, and settings of folders have them.
    pub(super) fn to_read(&self, path: &Path) -> anyhow::Result<PathBuf> {
        self.below(path).map(|(found, _)| found)
    }

    /// The same of a path that may be changed.
    ///
    /// # Errors
    /// Also when it is too close to the root: an empty setting must not cost a node.
    pub(super) fn to_change(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let (found, names) = self.below(path)?;
        if names < NAMES {
            bail!("{path:?} has fewer than {NAMES} names: it is not changed");
        }
        Ok(found)
    }

    fn below(&self, path: &Path) -> anyhow::Result<(PathBuf, usize)> {
        let mut components = path.components();
        let mut within = PathBuf::new();
        let mut names = 0;
        let mut normal = components.next() == Some(Component::RootDir);
        for component in components {
            normal &= matches!(component, Component::Normal(_));
            within.push(component);
            names += 1;
        }
        if !normal {
            bail!("{path:?} is not an absolute path without `..`");
        }
        Ok((self.linked(&within)?, names))
    }

    /// Where the folder is that a path means to the node: its links begin at its root, and not at
    /// the pod's. The last name may be a link or nothing; it is what is read or changed.
    fn linked(&self, within: &Path) -> anyhow::Result<PathBuf> {
        let plain = self.0.join(within);
        let (Some(folder), Some(name)) = (within.parent(), within.file_name()) else {
            return Ok(plain);
        };
        if folder.as_os_str().is_empty() {
            return Ok(plain);
        }
        let how = OpenHow::new().flags(OFlag::O_PATH).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let root = match File::open(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(plain),
            opened => opened.with_context(|| format!("open {}", self.0.display()))?,
        };
        match openat2(&root, folder, how) {
            Ok(found) => {
                let link = format!("/proc/self/fd/{}", found.as_raw_fd());
                Ok(read_link(link).context("ask where a folder is")?.join(name))
            }
            // There is nothing there, as its user will find.
            Err(Errno::ENOENT) => Ok(plain),
            Err(error) => Err(error).with_context(|| format!("find {}", plain.display())),
        }
    }
}

/// The file of another name in the same folder.
///
/// # Errors
/// When the text is more than a name, or none.
pub(super) fn beside(path: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        // A name with a `/` at its end is one component, too.
        (Some(Component::Normal(only)), None) if only == name => Ok(path.with_file_name(name)),
        _ => bail!("{name:?} is not the name of a file"),
    }
}

#[cfg(test)]
impl Root {
    pub(super) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_deep_enough_is_changed() {
        // The path, whether it can be read, whether it can be changed.
        let cases = [
            ("", false, false),
            ("/", true, false),
            ("//", true, false),
            ("/.", true, false),
            ("/etc", true, false),
            ("/etc/cni", true, false),
            ("/etc/cni/", true, false),
            ("/etc//./cni", true, false),
            ("/etc/cni/net.d", true, true),
            ("/etc/cni/net.d/", true, true),
            ("/etc/cni/net.d//10-a.conflist", true, true),
            ("/etc/cni/..net.d", true, true),
            ("/var/run/sluice/agent", true, true),
            (".", false, false),
            ("etc", false, false),
            ("etc/cni/net.d", false, false),
            ("./etc/cni/net.d", false, false),
            ("../etc/cni/net.d", false, false),
            ("/..", false, false),
            ("/../etc/cni/net.d", false, false),
            ("/etc/cni/net.d/..", false, false),
            ("/etc/cni/../../var/lib", false, false),
        ];
        let root = Root::of_node();
        for (path, read, change) in cases {
            assert_eq!(root.to_read(Path::new(path)).is_ok(), read, "{path:?}");
            let changed = root.to_change(Path::new(path));
            assert_eq!(changed.is_ok(), change, "{path:?}");
            if let Err(error) = changed {
                assert!(error.to_string().contains(&format!("{path:?}")), "{path:?}: {error}");
            }
        }
    }

    #[test]
    fn the_nodes_files_are_elsewhere_in_the_pod() {
        for (path, found) in [
            ("/", "/host"),
            ("/etc/hosts", "/host/etc/hosts"),
            ("/etc/cni/net.d//./a", "/host/etc/cni/net.d/a"),
        ] {
            assert_eq!(Root::of_node().to_read(Path::new(path)).unwrap(), Path::new(found));
        }
    }

    #[test]
    fn the_nodes_links_begin_at_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(node.join("run/sluice")).unwrap();
        std::fs::create_dir(node.join("var")).unwrap();
        std::os::unix::fs::symlink("/run", node.join("var/run")).unwrap();
        std::os::unix::fs::symlink("../../../..", node.join("run/up")).unwrap();
        for (path, found) in [
            ("/var/run/sluice", "run/sluice"),
            ("/var/run/sluice/agent", "run/sluice/agent"),
            ("/var/run/none/agent", "var/run/none/agent"),
            ("/var/run", "var/run"),
            ("/run/up/run/sluice", "run/sluice"),
        ] {
            let seen = Root::at(&node).to_read(Path::new(path)).unwrap();
            assert_eq!(seen, node.join(found), "{path}");
        }
    }

    #[test]
    fn another_name_stays_in_the_folder() {
        let path = Path::new("/host/etc/cni/net.d/10-a.conflist");
        let found = beside(path, "98-a.conflist").unwrap();
        assert_eq!(found, Path::new("/host/etc/cni/net.d/98-a.conflist"));
        for wrong in ["", ".", "..", "/", "a/b", "a/", "./a", "../a", "/etc/passwd"] {
            assert!(beside(path, wrong).is_err(), "{wrong:?}");
        }
    }
}
