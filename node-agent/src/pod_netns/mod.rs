//! Where is a pod's network namespace? The plugin tells; what it told is written down,
//! so that a later label, or an agent that was restarted, finds the pod again. Of a pod
//! that the plugin did not see start, the container runtime tells, or a process in it.
//!
//! A path is only a hint: by the time it is opened it may lead to another pod. It is
//! believed when the pod's address is on one of the namespace's interfaces; one that was
//! written down, only when the kernel's own number of the namespace and the boot agree too.

mod every;
mod finder;
mod processes;
mod record;
mod runtime;
mod store;

use std::net::IpAddr;

use netns::{Fence, FenceError, NetnsError, NetnsId, PodNetns};

pub use every::{Place as NodePlace, every};
pub use finder::{Finder, FinderError, Located, NotFound, Places, Sought, Way};
pub use processes::{ProcessError, Processes};
pub use record::{Record, StoredId};
pub use runtime::{InfoError, Place, Runtime, RuntimeError, Sandbox, USUAL_SOCKETS};
pub use store::{DAMAGED, Known, Store, StoreError, recorded};

#[cfg(test)]
pub(crate) use runtime::messages;

use crate::inside::inside;

/// Why a namespace is not the pod's.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// It cannot be opened or is no namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// It cannot be looked into.
    #[error("look into the network namespace: {0}")]
    Fence(#[from] FenceError),
    /// Its addresses cannot be listed.
    #[error("list the addresses of the network namespace: {0}")]
    Addresses(#[source] nix::Error),
    /// The plugin told no path.
    #[error("the runtime told no path of the pod's network namespace")]
    NoPath,
    /// The record is from before a reboot.
    #[error("the network namespace was recorded before this boot and cannot exist any more")]
    OtherBoot,
    /// The path leads elsewhere now.
    #[error("{path} leads to network namespace {found}, the pod's was {expected}")]
    OtherNetns {
        /// The path.
        path: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// It is the agent's own.
    #[error("the network namespace is the node's own, not a pod's")]
    OwnNetns,
    /// None or not all of the addresses are there.
    #[error("no interface of the network namespace has the pod's address {0}")]
    NoAddress(IpAddr),
    /// Nobody knows an address of the pod.
    #[error("the pod has no address yet by which its network namespace could be told")]
    Unrecognisable,
}

/// Finds and checks namespaces.
#[derive(Clone, Debug)]
pub struct Locator {
    fence: Fence,
    own: NetnsId,
    boot: String,
}

impl Locator {
    /// For the current boot and the caller's namespace.
    ///
    /// # Errors
    /// [`LocateError`] when /proc is not mounted.
    pub fn new(fence: Fence) -> Result<Self, LocateError> {
        let own = PodNetns::current()?.id();
        let boot =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|source| {
                NetnsError::Io { step: "read /proc/sys/kernel/random/boot_id", source }
            })?;
        Ok(Self { fence, own, boot: boot.trim().to_owned() })
    }

    /// The number of this boot.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Looks whether a descriptor from the plugin can be the namespace of a pod with
    /// these addresses.
    ///
    /// # Errors
    /// [`LocateError::OwnNetns`], [`LocateError::NoAddress`], or why nobody can tell.
    pub async fn check(&self, netns: &PodNetns, ips: &[IpAddr]) -> Result<(), LocateError> {
        if same(netns.id(), self.own) {
            return Err(LocateError::OwnNetns);
        }
        let found = self.addresses(netns).await?;
        match ips.iter().find(|ip| !found.contains(ip)) {
            Some(absent) => Err(LocateError::NoAddress(*absent)),
            None => Ok(()),
        }
    }

    /// Opens the recorded path again and believes it only if it still is the pod's.
    ///
    /// # Errors
    /// Any [`LocateError`].
    pub async fn open(&self, record: &Record) -> Result<PodNetns, LocateError> {
        if record.netns.boot != self.boot {
            return Err(LocateError::OtherBoot);
        }
        let path = record.path.as_ref().ok_or(LocateError::NoPath)?;
        let netns = PodNetns::open(path)?;
        if !same(netns.id(), record.netns.id()) {
            return Err(LocateError::OtherNetns {
                path: path.display().to_string(),
                found: netns.id().to_string(),
                expected: record.netns.id().to_string(),
            });
        }
        // Its number tells a namespace whose pod has no address yet.
        if !record.ips.is_empty() {
            self.confirm(&netns, &record.ips).await?;
        }
        Ok(netns)
    }

    /// Looks whether a namespace can be that of a running pod with these addresses. One of
    /// them is enough: a pod may have given up an address family since it started.
    ///
    /// # Errors
    /// [`LocateError::OwnNetns`], [`LocateError::NoAddress`], [`LocateError::Unrecognisable`],
    /// or why nobody can tell.
    pub async fn confirm(&self, netns: &PodNetns, ips: &[IpAddr]) -> Result<(), LocateError> {
        if same(netns.id(), self.own) {
            return Err(LocateError::OwnNetns);
        }
        let first = ips.first().ok_or(LocateError::Unrecognisable)?;
        let found = self.addresses(netns).await?;
        let carries = ips.iter().any(|ip| found.contains(ip));
        if carries { Ok(()) } else { Err(LocateError::NoAddress(*first)) }
    }

    async fn addresses(&self, netns: &PodNetns) -> Result<Vec<IpAddr>, LocateError> {
        inside(&self.fence, netns, addresses).await?.map_err(LocateError::Addresses)
    }
}

/// Whether two ids name one namespace. The cookie decides where the kernel has it: inode
/// numbers are used again at once.
#[must_use]
pub fn same(a: NetnsId, b: NetnsId) -> bool {
    match (a.cookie, b.cookie) {
        (Some(a), Some(b)) => a == b,
        _ => (a.dev, a.ino) == (b.dev, b.ino),
    }
}

/// The addresses of the calling thread's namespace.
fn addresses() -> nix::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(interfaces.filter_map(|interface| interface.address.and_then(ip)).collect())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unseen_tests;
