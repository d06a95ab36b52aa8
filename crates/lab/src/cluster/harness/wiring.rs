//! The cluster's network: the control plane's machine has a bridge, into which the nodes are
//! plugged, and is their way to everywhere else. No link is ever made in the host's namespace.

use crate::net::NetError;
use crate::net::links::Links;
use crate::net::sysctl;
use crate::place::Place;

use super::plan::{Plan, WIRE};

/// Sets up the control plane's machine.
pub(super) async fn build_middle(middle: &Place, plan: Plan) -> Result<(), NetError> {
    sysctl::prepare(middle).await?;
    let links = Links::open(middle).await?;
    links.up("lo").await?;
    links.bridge(WIRE).await?;
    links.up(WIRE).await?;
    for address in plan.control_plane() {
        links.address(WIRE, address).await?;
    }
    Ok(())
}

/// Plugs a node in and gives it its addresses and its way out.
pub(super) async fn plug(
    middle: &Place,
    node: &Place,
    number: u8,
    plan: Plan,
) -> Result<(), NetError> {
    sysctl::prepare(node).await?;
    let (port, end) = (format!("node{number}"), format!("end{number}"));
    let in_middle = Links::open(middle).await?;
    // The kernel takes its time to end the network of a node that has lost its power.
    in_middle.remove(&port).await?;
    in_middle.veth(&port, &end).await?;
    in_middle.attach(&port, WIRE).await?;
    in_middle.up(&port).await?;
    in_middle.give(&end, node.netns()).await?;
    let links = Links::open(node).await?;
    links.rename(&end, "eth0").await?;
    links.up("lo").await?;
    links.up("eth0").await?;
    for address in plan.node(number) {
        links.address("eth0", address).await?;
    }
    for middle in plan.control_plane() {
        let everywhere = if middle.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let everywhere = everywhere.parse().expect("a network");
        links.route(everywhere, middle.ip()).await?;
    }
    Ok(())
}

/// Tells the middle, and so every node, the way to a node's pods.
pub(super) async fn route_pods(middle: &Place, number: u8, plan: Plan) -> Result<(), NetError> {
    let links = Links::open(middle).await?;
    for pods in plan.pods_of(number) {
        let node = plan.node(number).into_iter().find(|node| node.is_ipv4() == pods.is_ipv4());
        if let Some(node) = node {
            links.route(pods, node.ip()).await?;
        }
    }
    Ok(())
}
