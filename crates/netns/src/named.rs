//! Namespaces with a path, for those who make pods: the lab and tests.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

use netns_rs::{Env, NetNs};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};

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
    _mount: Mount,
    path: PathBuf,
    netns: PodNetns,
}

impl NamedNetns {
    /// Makes the namespace `name` in `folder`, which is created when absent and becomes a
    /// mount point; [`release_folder`] undoes that.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when the name is taken or no file name, or when privileges are
    /// missing.
    pub fn create(folder: &Path, name: &str) -> Result<Self, NetnsError> {
        let path = folder.join(name);
        let mount = Mount::create(folder, name).map_err(|error| NetnsError::Open {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let netns = PodNetns::open(&path)?;
        Ok(Self { _mount: mount, path, netns })
    }

    /// Takes over the namespace that somebody else has bound to the file `name` of `folder`: it
    /// is removed when dropped.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when there is none.
    pub fn adopt(folder: &Path, name: &str) -> Result<Self, NetnsError> {
        let path = folder.join(name);
        let adopted = NetNs::get_from_env(name, Folder(folder.to_owned()));
        let adopted = adopted.map_err(|error| NetnsError::Open {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let netns = PodNetns::open(&path)?;
        Ok(Self { _mount: Mount(Some(adopted)), path, netns })
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

impl fmt::Debug for NamedNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedNetns").field("path", &self.path).field("netns", &self.netns).finish()
    }
}

/// Undoes what [`NamedNetns::create`] did to its folder: it is no mount point any more.
/// Namespaces that are still bound in it lose their names. The folder itself stays.
/// Nothing happens to a folder that is absent or no mount point.
///
/// # Errors
/// As `umount2(2)`; `EPERM` without `CAP_SYS_ADMIN`.
pub fn release_folder(folder: &Path) -> io::Result<()> {
    loop {
        // Several makers at once may have stacked mounts, so until none is left.
        match umount2(folder, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The file and the mount on it; both go when dropped.
struct Mount(Option<NetNs<Folder>>);

impl Mount {
    fn create(folder: &Path, name: &str) -> io::Result<Self> {
        if !is_file_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
        }
        std::fs::create_dir_all(folder)?;
        // Two makers at once would both turn the folder into a mount point.
        let lock = Flock::lock(File::open(folder)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let path = folder.join(name);
        OpenOptions::new().write(true).create_new(true).open(&path)?;
        let named = NetNs::new_with_env(name, Folder(folder.to_owned()));
        drop(lock);
        named.map(|named| Self(Some(named))).map_err(|error| {
            // The reason is told; a file that cannot be removed would only hide it.
            let _ = std::fs::remove_file(&path);
            io::Error::other(error)
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(named) = self.0.take() {
            // Nobody is left to tell; a lab's sweep finds what stayed.
            let _ = named.remove();
        }
    }
}

fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}
