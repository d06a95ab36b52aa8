//! The way of the answers to probes, on nodes where Cilium routes.
//!
//! The probes' source is an address that no table of the node knows: conntrack gives an answer
//! its true destination back before anybody asks for its way. With BPF host routing Cilium asks
//! first, when the packet leaves the pod, and drops what leads nowhere. A route that calls the
//! address this node's own hands the answer to the node's stack, as with any other CNI. What is
//! sent there and is no answer is dropped by the rules of [`capture::HostRules`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};

use super::cause::Surroundings;
use super::kernel::Kernel;
use super::links::{LinkError, Links};
use crate::inside::inside;
use crate::rules::options::{PROBE_SOURCE_V4, PROBE_SOURCE_V6};

/// The loopback device has index 1 in every namespace.
const LOOPBACK: u32 = 1;
/// The kernel's table of the node's own addresses.
const LOCAL: u32 = 255;
const SOURCES: [IpAddr; 2] = [IpAddr::V4(PROBE_SOURCE_V4), IpAddr::V6(PROBE_SOURCE_V6)];

/// Makes the routes where this node needs them; says whether one was missing.
///
/// # Errors
/// Any [`LinkError`].
pub(super) async fn ensure(kernel: &Kernel) -> Result<bool, LinkError> {
    let around = inside(kernel.runner.fence(), &kernel.netns, Surroundings::look).await?;
    if !around.cilium {
        return Ok(false);
    }
    let links = Links::open(&kernel.runner, &kernel.netns).await?;
    let mut made = false;
    for source in SOURCES.into_iter().filter(|source| source.is_ipv4() || around.v6) {
        let route = way_to(source);
        if !links.has_route(&route).await? {
            links.route(route).await?;
            made = true;
        }
    }
    Ok(made)
}

/// Whether one of the routes is there.
///
/// # Errors
/// Any [`LinkError`].
pub(super) async fn present(kernel: &Kernel) -> Result<bool, LinkError> {
    let links = Links::open(&kernel.runner, &kernel.netns).await?;
    for source in SOURCES {
        if links.has_route(&way_to(source)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the routes away; none is fine.
///
/// # Errors
/// Any [`LinkError`].
pub(super) async fn remove(kernel: &Kernel) -> Result<(), LinkError> {
    let links = Links::open(&kernel.runner, &kernel.netns).await?;
    for source in SOURCES {
        let route = way_to(source);
        if links.has_route(&route).await? {
            links.delete_route(route).await?;
        }
    }
    Ok(())
}

fn way_to(source: IpAddr) -> RouteMessage {
    match source {
        IpAddr::V4(source) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(source, 32)
            .output_interface(LOOPBACK)
            .table_id(LOCAL)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build(),
        IpAddr::V6(source) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(source, 128)
            .output_interface(LOOPBACK)
            .table_id(LOCAL)
            .kind(RouteType::Local)
            .build(),
    }
}
