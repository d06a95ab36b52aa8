//! The container's network namespace: opened here, judged by the agent.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// Why `CNI_NETNS` is not the network namespace of a container.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The container is most likely gone already.
    #[error("open the container's network namespace {}: {source}", .path.display())]
    Open {
        /// `CNI_NETNS`.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is a file, or something else that is no namespace.
    #[error("CNI_NETNS {} is not a namespace", .path.display())]
    NotNetns {
        /// `CNI_NETNS`.
        path: PathBuf,
    },
    /// Capturing it would capture the node.
    #[error("CNI_NETNS {} is the namespace that the plugin itself runs in", .path.display())]
    Own {
        /// `CNI_NETNS`.
        path: PathBuf,
    },
}

impl NetnsError {
    /// libcni's number for an invalid network namespace; the specification has none.
    pub const CODE: u32 = 8;
}

/// Opens the namespace that the agent will be handed.
///
/// # Errors
/// [`NetnsError`].
pub fn open(path: &Path) -> Result<File, NetnsError> {
    let failed = |source| NetnsError::Open { path: path.to_owned(), source };
    // Non-blocking, because a path that leads to a pipe would wait for a writer.
    let flags = OFlag::O_NONBLOCK.bits();
    let netns = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if fstatfs(&netns).map_err(|errno| failed(errno.into()))?.filesystem_type() != NSFS_MAGIC {
        return Err(NetnsError::NotNetns { path: path.to_owned() });
    }
    if is_own(&netns).map_err(failed)? {
        return Err(NetnsError::Own { path: path.to_owned() });
    }
    Ok(netns)
}

fn is_own(netns: &File) -> io::Result<bool> {
    let (theirs, own) = (netns.metadata()?, std::fs::metadata("/proc/self/ns/net")?);
    Ok((theirs.dev(), theirs.ino()) == (own.dev(), own.ino()))
}
