//! Links, addresses and routes of one namespace, by netlink.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use netns::{FenceError, NetnsError, PodNetns};
use nix::errno::Errno;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::task::JoinHandle;

use crate::inside::inside;
use crate::rules::command::Runner;
use crate::rules::netlink::{code, unless};

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No namespace.
    #[error("make a namespace: {0}")]
    Netns(#[from] NetnsError),
    /// A namespace could not be entered.
    #[error("open a route socket: {0}")]
    Fence(#[from] FenceError),
    /// No socket.
    #[error("open a route socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{step}: {source}")]
    Netlink {
        /// What was attempted.
        step: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A link that was just made is gone.
    #[error("link {0} is gone as soon as it was made")]
    Vanished(&'static str),
}

/// A route socket in a namespace; its task ends with it.
pub(super) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(super) async fn open(runner: &Runner, netns: &PodNetns) -> Result<Self, LinkError> {
        let runtime = runner.runtime().clone();
        let job = move || {
            let _reactor = runtime.enter();
            // Only so does the kernel heed what a dump asks for; without, it lists everything.
            rtnetlink::new_connection_with_strict_check()
        };
        let opened = inside(runner.fence(), netns, job).await?;
        let (connection, handle, _) = opened.map_err(LinkError::Socket)?;
        Ok(Self { handle, connection: runner.runtime().spawn(connection) })
    }

    /// The addresses that the node's connections may come from. Those of the loopback range
    /// and of single links stay there.
    pub(super) async fn addresses(&self) -> Result<BTreeSet<IpAddr>, LinkError> {
        let all = self.handle.address().get().execute();
        let all: Vec<_> = all.try_collect().await.map_err(netlink("list addresses"))?;
        Ok(all.iter().filter_map(own_address).filter(is_seen_by_pods).collect())
    }

    pub(super) async fn pair(&self, name: &str, peer: &str) -> Result<(), LinkError> {
        let request = self.handle.link().add(LinkVeth::new(name, peer).build());
        request.execute().await.map_err(netlink("make a link"))
    }

    pub(super) async fn give(&self, name: &'static str, netns: &PodNetns) -> Result<(), LinkError> {
        let link = LinkUnspec::new_with_index(self.index(name).await?);
        let change = link.setns_by_fd(netns.as_fd().as_raw_fd()).build();
        let request = self.handle.link().change(change);
        request.execute().await.map_err(netlink("move a link to its namespace"))
    }

    pub(super) async fn up(&self, index: u32) -> Result<(), LinkError> {
        let change = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(change).execute().await.map_err(netlink("set a link up"))
    }

    /// Without duplicate detection, which takes a second and more.
    pub(super) async fn address(
        &self,
        index: u32,
        addr: IpAddr,
        bits: u8,
    ) -> Result<(), LinkError> {
        let mut request = self.handle.address().add(index, addr, bits);
        let header = &mut request.message_mut().header;
        if addr.is_ipv6() {
            header.flags |= AddressHeaderFlags::Nodad;
        } else {
            header.scope = AddressScope::Link;
        }
        request.execute().await.map_err(netlink("give an address to a link"))
    }

    pub(super) async fn route(&self, route: RouteMessage) -> Result<(), LinkError> {
        self.handle.route().add(route).execute().await.map_err(netlink("add a route"))
    }

    /// Adds a route; says whether it was missing. A route of somebody else's to the same
    /// destination in the same table counts as it.
    pub(super) async fn ensure_route(&self, route: RouteMessage) -> Result<bool, LinkError> {
        match self.handle.route().add(route).execute().await {
            Ok(()) => Ok(true),
            Err(error) if code(&error) == Some(Errno::EEXIST) => Ok(false),
            Err(error) => Err(netlink("add a route")(error)),
        }
    }

    /// Whether [`Links::delete_route`] would find it. The kernel lists a part of one table for
    /// that: no question for every few seconds.
    pub(super) async fn has_route(&self, route: &RouteMessage) -> Result<bool, LinkError> {
        let mut found = self.handle.route().get(like(route)).execute();
        while let Some(found) = found.try_next().await.map_err(netlink("list routes"))? {
            // Kernels answer for other families where theirs is not built in.
            if is_same(route, &found) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A route that is not there is deleted. A kernel without IPv6 has no routes of it either,
    /// and no code to delete them.
    pub(super) async fn delete_route(&self, route: RouteMessage) -> Result<(), LinkError> {
        let deletion = self.handle.route().del(route).execute().await;
        deletion
            .or_else(unless(&[Errno::ESRCH, Errno::ENODEV, Errno::EOPNOTSUPP]))
            .map_err(netlink("delete a route"))
    }

    /// What is not there is deleted.
    pub(super) async fn delete(&self, name: &'static str) -> Result<(), LinkError> {
        match self.index(name).await {
            Ok(index) => {
                let request = self.handle.link().del(index);
                request.execute().await.map_err(netlink("delete a link"))
            }
            Err(LinkError::Vanished(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn index(&self, name: &'static str) -> Result<u32, LinkError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) => Err(LinkError::Vanished(name)),
            Err(error) if code(&error) == Some(Errno::ENODEV) => Err(LinkError::Vanished(name)),
            Err(source) => Err(netlink("look up a link")(source)),
        }
    }
}

fn netlink(step: &'static str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |source| LinkError::Netlink { step, source }
}

/// Asks for routes of that table, kind, origin and link. With a destination it would ask for a
/// packet's way instead of a route, and a dump may not name one.
fn like(route: &RouteMessage) -> RouteMessage {
    let mut like = RouteMessage::default();
    like.header.address_family = route.header.address_family;
    like.header.table = route.header.table;
    like.header.kind = route.header.kind;
    like.header.protocol = route.header.protocol;
    let links = route.attributes.iter().filter(|it| matches!(it, RouteAttribute::Oif(_)));
    like.attributes.extend(links.cloned());
    like
}

/// Whether `found` is that route. Who made it counts: the kernel's own routes to addresses of
/// this node may look the same.
fn is_same(route: &RouteMessage, found: &RouteMessage) -> bool {
    let of = |route: &RouteMessage| {
        let header = &route.header;
        (header.kind, header.protocol, header.table, header.destination_prefix_length)
    };
    of(found) == of(route) && route.attributes.iter().all(|it| found.attributes.contains(it))
}

/// The near end of a link with two.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = of(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        of(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn is_seen_by_pods(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}
