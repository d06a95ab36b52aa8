//! A listener that the agent holds.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netns::{PodNetns, inspect_listener};
use zds::{GivenListener, ListenAt};

/// An in-pod listener. Clones share one descriptor; the port is free when the last clone
/// and the last duplicate of a ztunnel are gone.
#[derive(Clone, Debug)]
pub struct HeldListener {
    at: ListenAt,
    socket: Arc<OwnedFd>,
    inode: u64,
}

/// Why a listener that came back is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReturnError {
    /// It is something else.
    #[error("returned listener {at}: {source}")]
    NotAListener {
        /// What it was said to be.
        at: ListenAt,
        /// What it is.
        source: io::Error,
    },
    /// It listens at another place.
    #[error("returned listener {at} is one of {found}")]
    Elsewhere {
        /// What it was said to be.
        at: ListenAt,
        /// Where it listens.
        found: SocketAddr,
    },
    /// It is another pod's.
    #[error("returned listener {0} lives in another network namespace than the pod")]
    OtherNetns(ListenAt),
}

impl HeldListener {
    pub(super) fn of(at: ListenAt, listener: TcpListener) -> io::Result<Self> {
        let inode = inspect_listener(&listener)?.inode;
        Ok(Self { at, socket: Arc::new(listener.into()), inode })
    }

    /// Takes a listener back from a ztunnel, if it is what it is said to be.
    ///
    /// # Errors
    /// Any [`ReturnError`].
    pub fn returned(given: GivenListener, netns: &PodNetns) -> Result<Self, ReturnError> {
        let GivenListener { at, fd } = given;
        let facts =
            inspect_listener(&fd).map_err(|source| ReturnError::NotAListener { at, source })?;
        if facts.addr.port() != at.port || !facts.addr.ip().is_unspecified() {
            return Err(ReturnError::Elsewhere { at, found: facts.addr });
        }
        // Kernels before 5.14 cannot tell.
        let (socket, pod) = (facts.netns_cookie, netns.id().cookie);
        if socket.zip(pod).is_some_and(|(socket, pod)| socket != pod) {
            return Err(ReturnError::OtherNetns(at));
        }
        Ok(Self { at, socket: Arc::new(fd), inode: facts.inode })
    }

    /// Where it listens.
    #[must_use]
    pub fn at(&self) -> ListenAt {
        self.at
    }

    /// What tells the socket from others, as in `/proc/net/tcp`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A duplicate to accept from.
    ///
    /// # Errors
    /// When out of descriptors.
    pub fn duplicate(&self) -> io::Result<TcpListener> {
        Ok(self.socket.try_clone()?.into())
    }
}

impl AsFd for HeldListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
