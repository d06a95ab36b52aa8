//! An owned network namespace and what tells it from every other.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::fence::FenceError;

/// What tells one network namespace from another.
///
/// The kernel reuses inode numbers at once after a namespace is gone, so device and
/// inode identify it only while a descriptor is held. The cookie (`SO_NETNS_COOKIE`,
/// Linux 5.14) is never reused within one boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Device of the namespace's inode.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// The kernel's own number of the namespace; `None` before Linux 5.14.
    pub cookie: Option<u64>,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cookie {
            Some(cookie) => write!(f, "{}/{}", self.ino, cookie),
            None => write!(f, "{}", self.ino),
        }
    }
}

impl fmt::Debug for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetnsId({self})")
    }
}

/// Why something is not usable as a pod's network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened, most often because the pod is gone.
    #[error("open network namespace {path}: {reason}")]
    Open {
        /// What was looked for.
        path: String,
        /// The system's answer.
        reason: String,
    },
    /// The descriptor is of another kind.
    #[error("descriptor is not a network namespace ({found})")]
    NotNetns {
        /// What it seems to be.
        found: String,
    },
    /// The system refused to tell about the descriptor.
    #[error("{step}: {source}")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Its identity could not be read from inside.
    #[error(transparent)]
    Fence(#[from] FenceError),
}

/// An open descriptor of a network namespace. Cloning shares the descriptor; the
/// namespace lives at least as long as the last clone.
#[derive(Clone)]
pub struct PodNetns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

impl PodNetns {
    /// Opens the namespace at `path`, for example `/run/netns/x` or `/proc/7/ns/net`.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when it is gone, [`NetnsError::NotNetns`] when something else
    /// is there.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let failed = |reason: String| NetnsError::Open { path: path.display().to_string(), reason };
        // A path is only a claim: opening a pipe for reading would wait for its writer for
        // ever, so it is looked at before it is opened for real.
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let seen =
            nix::fcntl::open(path, flags, Mode::empty()).map_err(|e| failed(e.to_string()))?;
        expect_nsfs(&seen)?;
        let same = format!("/proc/self/fd/{}", seen.as_raw_fd());
        let opened = netns_rs::get_from_path(same).map_err(|error| failed(error.to_string()))?;
        let fd = opened
            .file()
            .as_fd()
            .try_clone_to_owned()
            .map_err(io("duplicate the namespace descriptor"))?;
        Self::from_fd(fd)
    }

    /// Takes over a descriptor, for example one that came over a socket.
    ///
    /// # Errors
    /// [`NetnsError::NotNetns`] when it is anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        expect_nsfs(&fd)?;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_err(io("read the descriptor's name"))?;
        // A descriptor opened through a bind mount shows the mount's path; only the
        // kernel's own name "net:[inode]" says more, and others of nsfs contradict it.
        let name = link.display().to_string();
        if name.contains(":[") && !name.starts_with("net:[") {
            return Err(NetnsError::NotNetns { found: name });
        }
        let stat = fstat(&fd).map_err(nix_io("fstat"))?;
        let id = NetnsId { dev: stat.st_dev, ino: stat.st_ino, cookie: None };
        let mut netns = Self { fd: Arc::new(fd), id };
        netns.id.cookie = crate::fence::run_once(&netns, crate::socket::netns_cookie)
            .map_err(unentered(&name))?;
        Ok(netns)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::Open`] when /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// A new, empty namespace without a name: gone with its last descriptor.
    ///
    /// # Errors
    /// [`NetnsError::Fence`] without the privilege to make one.
    pub fn scratch() -> Result<Self, NetnsError> {
        Self::from_fd(crate::fence::unshared()?)
    }

    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }
}

impl AsFd for PodNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for PodNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodNetns").field("fd", &self.fd.as_raw_fd()).field("id", &self.id).finish()
    }
}

fn expect_nsfs(fd: &OwnedFd) -> Result<(), NetnsError> {
    let kind = fstatfs(fd).map_err(nix_io("fstatfs"))?.filesystem_type();
    if kind == NSFS_MAGIC {
        Ok(())
    } else {
        Err(NetnsError::NotNetns { found: format!("on a file system of type {:#x}", kind.0) })
    }
}

/// The kernel refuses to enter a namespace of another kind as a network namespace.
fn unentered(name: &str) -> impl FnOnce(FenceError) -> NetnsError {
    move |error| match error {
        FenceError::Enter(errno) if errno.raw_os_error() == Some(libc::EINVAL) => {
            NetnsError::NotNetns { found: format!("{name}, a namespace of another kind") }
        }
        other => other.into(),
    }
}

fn io(step: &'static str) -> impl FnOnce(io::Error) -> NetnsError {
    move |source| NetnsError::Io { step, source }
}

fn nix_io(step: &'static str) -> impl FnOnce(nix::Error) -> NetnsError {
    move |errno| NetnsError::Io { step, source: errno.into() }
}
