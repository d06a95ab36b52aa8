//! A pod of our own beside the node, with a link of its own, for as long as a test takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use netns::{FenceError, NetnsError, PodNetns};
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;

use crate::inside::inside;
use crate::rules::command::Runner;
use crate::rules::options::{PROBE_SOURCE_V4, PROBE_SOURCE_V6};

/// The end on the node. A name that nobody else takes: what bears it is ours to remove.
const NODE_END: &str = "sluice-probe";
const POD_END: &str = "sluice-probe-p";

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TestPodError {
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

/// The addresses of one family on the link: neighbours of the probes' source, so nobody
/// else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) marker: IpAddr,
    pub(super) node: IpAddr,
    pub(super) pod: IpAddr,
    bits: u8,
}

pub(super) const V4: Family = Family {
    name: "IPv4",
    marker: IpAddr::V4(PROBE_SOURCE_V4),
    node: IpAddr::V4(Ipv4Addr::new(169, 254, 7, 125)),
    pod: IpAddr::V4(Ipv4Addr::new(169, 254, 7, 126)),
    bits: 32,
};
pub(super) const V6: Family = Family {
    name: "IPv6",
    marker: IpAddr::V6(PROBE_SOURCE_V6),
    node: IpAddr::V6(in_marker_range(0xfffd)),
    pod: IpAddr::V6(in_marker_range(0xfffe)),
    bits: 128,
};

const fn in_marker_range(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, last)
}

/// A namespace behind a link of the node. Its end takes the link with it, so even an agent
/// that is killed leaves nothing.
pub(super) struct TestPod {
    pub(super) netns: PodNetns,
    node: Links,
}

impl TestPod {
    /// Makes it, with these families.
    pub(super) async fn make(
        runner: &Runner,
        node: &PodNetns,
        families: &[Family],
    ) -> Result<Self, TestPodError> {
        let netns = PodNetns::scratch()?;
        let node = Links::open(runner, node).await?;
        let pod = Links::open(runner, &netns).await?;
        let this = Self { netns, node };
        let made = this.wire(&pod, families).await;
        match made {
            Ok(()) => Ok(this),
            Err(error) => {
                this.remove().await;
                Err(error)
            }
        }
    }

    /// Removes it. The kernel does the same by itself, later, when the namespace ends.
    pub(super) async fn remove(self) {
        if let Err(error) = self.node.delete(NODE_END).await {
            tracing::warn!(%error, "the link of the probe test goes with its namespace");
        }
    }

    async fn wire(&self, pod: &Links, families: &[Family]) -> Result<(), TestPodError> {
        let node = &self.node;
        node.delete(NODE_END).await?;
        node.pair(NODE_END, POD_END).await?;
        node.give(POD_END, &self.netns).await?;
        let (near, far) = (node.index(NODE_END).await?, pod.index(POD_END).await?);
        node.up(near).await?;
        pod.up(pod.index("lo").await?).await?;
        pod.up(far).await?;
        for family in families {
            node.address(near, family.node, family.bits).await?;
            pod.address(far, family.pod, family.bits).await?;
            node.route(route_to(family.pod, near)).await?;
            pod.route(default_route(family.node, far)).await?;
        }
        Ok(())
    }
}

/// A route socket in a namespace; its task ends with it.
struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    async fn open(runner: &Runner, netns: &PodNetns) -> Result<Self, TestPodError> {
        let runtime = runner.runtime().clone();
        let job = move || {
            let _reactor = runtime.enter();
            rtnetlink::new_connection()
        };
        let opened = inside(runner.fence(), netns, job).await?;
        let (connection, handle, _) = opened.map_err(TestPodError::Socket)?;
        Ok(Self { handle, connection: runner.runtime().spawn(connection) })
    }

    async fn pair(&self, name: &str, peer: &str) -> Result<(), TestPodError> {
        let request = self.handle.link().add(LinkVeth::new(name, peer).build());
        request.execute().await.map_err(netlink("make a link"))
    }

    async fn give(&self, name: &'static str, netns: &PodNetns) -> Result<(), TestPodError> {
        let link = LinkUnspec::new_with_index(self.index(name).await?);
        let change = link.setns_by_fd(netns.as_fd().as_raw_fd()).build();
        let request = self.handle.link().change(change);
        request.execute().await.map_err(netlink("move a link to its namespace"))
    }

    async fn up(&self, index: u32) -> Result<(), TestPodError> {
        let change = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(change).execute().await.map_err(netlink("set a link up"))
    }

    /// Without duplicate detection, which takes a second and more.
    async fn address(&self, index: u32, addr: IpAddr, bits: u8) -> Result<(), TestPodError> {
        let mut request = self.handle.address().add(index, addr, bits);
        let header = &mut request.message_mut().header;
        if addr.is_ipv6() {
            header.flags |= AddressHeaderFlags::Nodad;
        } else {
            header.scope = AddressScope::Link;
        }
        request.execute().await.map_err(netlink("give an address to a link"))
    }

    async fn route(&self, route: RouteMessage) -> Result<(), TestPodError> {
        self.handle.route().add(route).execute().await.map_err(netlink("add a route"))
    }

    /// What is not there is deleted.
    async fn delete(&self, name: &'static str) -> Result<(), TestPodError> {
        match self.index(name).await {
            Ok(index) => {
                let request = self.handle.link().del(index);
                request.execute().await.map_err(netlink("delete a link"))
            }
            Err(TestPodError::Vanished(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn index(&self, name: &'static str) -> Result<u32, TestPodError> {
        const ENODEV: i32 = 19;
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) => Err(TestPodError::Vanished(name)),
            Err(rtnetlink::Error::NetlinkError(message))
                if message.code.is_some_and(|code| code.get() == -ENODEV) =>
            {
                Err(TestPodError::Vanished(name))
            }
            Err(source) => Err(netlink("look up a link")(source)),
        }
    }
}

fn route_to(to: IpAddr, link: u32) -> RouteMessage {
    match to {
        IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .output_interface(link)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to, 128)
            .output_interface(link)
            .build(),
    }
}

fn default_route(via: IpAddr, link: u32) -> RouteMessage {
    match via {
        IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(via)
            .output_interface(link)
            .onlink()
            .build(),
        IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(via)
            .output_interface(link)
            .onlink()
            .build(),
    }
}

fn netlink(step: &'static str) -> impl FnOnce(rtnetlink::Error) -> TestPodError {
    move |source| TestPodError::Netlink { step, source }
}
