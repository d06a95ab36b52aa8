//! Listeners that the node agent has bound.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netns::PodNetns;
use zds::ListenAt;

use super::{PORTS, inspect};

/// A listener from the agent, looked at and found to be what it was said to be.
#[derive(Clone, Debug)]
pub struct GivenListener {
    pub(crate) at: ListenAt,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) inode: u64,
}

impl PartialEq for GivenListener {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.inode) == (other.at, other.inode)
    }
}

impl Eq for GivenListener {}

/// Why a pod cannot be served on a descriptor.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It is something else.
    #[error("given listener {at}: {source}")]
    NotAListener {
        /// What it was said to be.
        at: ListenAt,
        /// What it is.
        source: io::Error,
    },
    /// It listens at another place.
    #[error("given listener {at} is one of {found}")]
    Elsewhere {
        /// What it was said to be.
        at: ListenAt,
        /// Where it listens.
        found: std::net::SocketAddr,
    },
    /// It is another pod's.
    #[error("given listener {0} lives in another network namespace than the pod")]
    OtherNetns(ListenAt),
    /// One is missing.
    #[error("listeners were given, but not {0}")]
    Missing(ListenAt),
}

impl GivenListener {
    /// Looks at the proxy's listeners that came with a pod in `netns`. What no proxy serves is
    /// closed.
    ///
    /// # Errors
    /// [`GivenError`]; the pod cannot be served on them.
    pub fn check(
        given: Vec<zds::GivenListener>,
        netns: &PodNetns,
    ) -> Result<Vec<Self>, GivenError> {
        Self::check_all(given, (&PORTS.map(ListenAt::any), &[]), netns)
    }

    /// The same for the pod's name server: of IPv4 it is whole, of IPv6 it has what the pod
    /// has.
    ///
    /// # Errors
    /// [`GivenError`].
    pub fn check_lookups(
        given: Vec<zds::GivenListener>,
        netns: &PodNetns,
    ) -> Result<Vec<Self>, GivenError> {
        Self::check_all(given, ListenAt::LOOKUPS.split_at(2), netns)
    }

    fn check_all(
        given: Vec<zds::GivenListener>,
        (needed, welcome): (&[ListenAt], &[ListenAt]),
        netns: &PodNetns,
    ) -> Result<Vec<Self>, GivenError> {
        let given: Vec<_> = given
            .into_iter()
            .filter(|given| needed.contains(&given.at) || welcome.contains(&given.at))
            .map(|given| Self::check_one(given, netns))
            .collect::<Result<_, _>>()?;
        let missing = needed.iter().find(|at| given.iter().all(|given| given.at != **at));
        missing.map_or(Ok(given), |at| Err(GivenError::Missing(*at)))
    }

    fn check_one(given: zds::GivenListener, netns: &PodNetns) -> Result<Self, GivenError> {
        let at = given.at;
        let facts =
            inspect(at, &given.fd).map_err(|source| GivenError::NotAListener { at, source })?;
        if !at.is_at(facts.addr) {
            return Err(GivenError::Elsewhere { at, found: facts.addr });
        }
        // Without cookies the agent's word has to do.
        let (socket, pod) = (facts.netns_cookie, netns.id().cookie);
        if socket.zip(pod).is_some_and(|(socket, pod)| socket != pod) {
            return Err(GivenError::OtherNetns(at));
        }
        Ok(Self { at, socket: Arc::new(given.fd), inode: facts.inode })
    }

    /// A duplicate.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}
