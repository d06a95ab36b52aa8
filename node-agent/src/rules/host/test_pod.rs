//! A pod of our own beside the node, with a link of its own, for as long as a test takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netns::PodNetns;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};

use super::links::{LinkError, Links};
use crate::rules::command::Runner;
use crate::rules::options::{PROBE_SOURCE_V4, PROBE_SOURCE_V6};

/// The end on the node. A name that nobody else takes: what bears it is ours to remove.
const NODE_END: &str = "sluice-probe";
const POD_END: &str = "sluice-probe-p";

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
    ) -> Result<Self, LinkError> {
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

    async fn wire(&self, pod: &Links, families: &[Family]) -> Result<(), LinkError> {
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
