//! The lab's network: a hub with one bridge, the wire, and nodes plugged into it.
//!
//! ```text
//!  hub: wire 172.30.0.1/24 fd00:30::1/64 (bridge)
//!         │ w1-<id>            │ w2-<id>        ◄── what a sniffer listens on
//!  node1: eth0 172.30.0.11  node2: eth0 172.30.0.12
//!         cni0 10.20.1.1       cni0 10.20.2.1   (made by the bridge plugin)
//!           └ pods 10.20.1.0/24  └ pods 10.20.2.0/24
//! ```
//!
//! No link is ever made in the host's namespace: pairs are made in the hub and one end is
//! moved to the node, so all of it is gone with the namespaces.

pub(crate) mod links;
pub(crate) mod plan;
pub(crate) mod sysctl;

use crate::net::links::{LinkError, Links};
use crate::net::sysctl::SysctlError;
use crate::options::Family;
use crate::place::Place;

/// The bridge in the hub.
const WIRE: &str = "wire";

/// Why the network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A namespace could not be made.
    #[error("make a network namespace: {0}")]
    Netns(#[from] netns::NetnsError),
    /// A link, address or route could not be set.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A kernel setting could not be written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// Name of the hub's port towards a node.
pub(crate) fn port_name(node: u8, id: &str) -> String {
    format!("w{node}-{id}")
}

/// Sets up the hub: its bridge, its addresses, and the routes to all pods.
pub(crate) async fn build_hub(hub: &Place, nodes: u8, family: Family) -> Result<(), NetError> {
    sysctl::prepare(hub).await?;
    let links = Links::open(hub).await?;
    links.up("lo").await?;
    links.bridge(WIRE).await?;
    links.up(WIRE).await?;
    for address in plan::hub() {
        links.address(WIRE, address).await?;
    }
    for node in 1..=nodes {
        route_to_pods(&links, node, family).await?;
    }
    Ok(())
}

/// Plugs one node into the hub and tells it the way to the others' pods.
pub(crate) async fn build_node(
    hub: &Place,
    place: &Place,
    id: &str,
    node: u8,
    nodes: u8,
    family: Family,
) -> Result<(), NetError> {
    sysctl::prepare(place).await?;
    let (port, end) = (port_name(node, id), format!("e{node}-{id}"));
    let in_hub = Links::open(hub).await?;
    in_hub.veth(&port, &end).await?;
    in_hub.attach(&port, WIRE).await?;
    in_hub.up(&port).await?;
    in_hub.give(&end, place.netns()).await?;
    let links = Links::open(place).await?;
    links.rename(&end, "eth0").await?;
    links.up("lo").await?;
    links.up("eth0").await?;
    for address in plan::node(node) {
        links.address("eth0", address).await?;
    }
    for other in (1..=nodes).filter(|other| *other != node) {
        route_to_pods(&links, other, family).await?;
    }
    // Nobody has these addresses. What is sent to one of them without being led to an
    // endpoint must be seen on the wire.
    for services in plan::services(family) {
        let via = if services.is_ipv4() { plan::HUB_V4.into() } else { plan::HUB_V6.into() };
        links.route(services, via).await?;
    }
    Ok(())
}

async fn route_to_pods(links: &Links, node: u8, family: Family) -> Result<(), LinkError> {
    for pods in plan::pods(node, family) {
        let via =
            if pods.is_ipv4() { plan::node_v4(node).into() } else { plan::node_v6(node).into() };
        links.route(pods, via).await?;
    }
    Ok(())
}
