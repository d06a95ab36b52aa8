//! A listener that the agent holds.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netns::{
    ListenerFacts, PodNetns, inspect_datagrams, inspect_listener, is_listening, listen_again,
};
use zds::{Carries, GiveBack, GivenListener, ListenAt, Lookups};

/// What the agent holds of one pod. Each of the two is there as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct PodListeners {
    /// Those of the proxy.
    pub proxy: Vec<HeldListener>,
    /// Those of the pod's name server.
    pub lookups: Vec<HeldListener>,
}

impl PodListeners {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &HeldListener> {
        self.proxy.iter().chain(&self.lookups)
    }

    /// What is missing of a pod, of which `wanted` can be handed on and whose lookups go
    /// this way.
    #[must_use]
    pub fn lacking(&self, wanted: GiveBack, lookups: Lookups) -> GiveBack {
        let lacks_lookups = self.lookups.is_empty() && lookups == Lookups::Redirected;
        match (wanted, self.proxy.is_empty(), lacks_lookups) {
            (GiveBack::All, true, true) => GiveBack::All,
            (GiveBack::All | GiveBack::Proxy, true, _) => GiveBack::Proxy,
            (GiveBack::All | GiveBack::Lookups, _, true) => GiveBack::Lookups,
            _ => GiveBack::NotAsked,
        }
    }
}

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
    pub(super) fn of(at: ListenAt, socket: OwnedFd) -> io::Result<Self> {
        let inode = inspect(at, &socket)?.inode;
        Ok(Self { at, socket: Arc::new(socket), inode })
    }

    /// Takes a listener back from a ztunnel, if it is what it is said to be.
    ///
    /// # Errors
    /// Any [`ReturnError`].
    pub fn returned(given: GivenListener, netns: &PodNetns) -> Result<Self, ReturnError> {
        let GivenListener { at, fd } = given;
        let facts = inspect(at, &fd).map_err(|source| ReturnError::NotAListener { at, source })?;
        if !at.is_at(facts.addr) {
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

    /// What tells the socket from others, as in `/proc/net/tcp` and `/proc/net/udp`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether it still is what it was opened as. A process in the pod that may end others'
    /// sockets can end it; one that datagrams come to outlives that.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.at.carries() == Carries::Datagrams || is_listening(&*self.socket).unwrap_or(false)
    }

    /// Opens it again after it was ended. Whoever has a duplicate, ztunnel above all, accepts
    /// from it again.
    ///
    /// # Errors
    /// As `listen(2)`; `EADDRINUSE` when somebody else has taken its place.
    pub fn listen_again(&self) -> io::Result<()> {
        listen_again(&*self.socket, super::open::BACKLOG)
    }

    /// A duplicate to accept from, or to read from.
    ///
    /// # Errors
    /// When out of descriptors.
    pub fn duplicate(&self) -> io::Result<Duplicate> {
        let socket = self.socket.try_clone()?;
        Ok(match self.at.carries() {
            Carries::Connections => Duplicate::Connections(socket.into()),
            Carries::Datagrams => Duplicate::Datagrams(socket.into()),
        })
    }
}

/// A duplicate of a [`HeldListener`].
#[derive(Debug)]
pub enum Duplicate {
    /// Of one that listens.
    Connections(TcpListener),
    /// Of one that datagrams come to.
    Datagrams(UdpSocket),
}

fn inspect(at: ListenAt, fd: &OwnedFd) -> io::Result<ListenerFacts> {
    match at.carries() {
        Carries::Connections => inspect_listener(fd),
        Carries::Datagrams => inspect_datagrams(fd),
    }
}

impl AsFd for HeldListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
