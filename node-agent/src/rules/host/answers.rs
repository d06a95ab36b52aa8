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
use crate::rules::netlink::LOOPBACK;
use crate::rules::options::{PROBE_SOURCE_V4, PROBE_SOURCE_V6};

/// The kernel's table of the node's own addresses.
const LOCAL: u32 = 255;
const SOURCES: [IpAddr; 2] = [IpAddr::V4(PROBE_SOURCE_V4), IpAddr::V6(PROBE_SOURCE_V6)];

/// Makes the routes where this node needs them; says whether one was missing. It is asked every
/// few seconds, also on nodes with a great many routes: nothing is listed for it, the kernel
/// refuses what is there already.
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
        made |= links.ensure_route(way_to(source)).await?;
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
        links.delete_route(way_to(source)).await?;
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

#[cfg(test)]
mod tests {
    use netns::{Fence, PodNetns};
    use tokio::runtime::Handle;

    use super::*;
    use crate::rules::command::Runner;
    use crate::testing::{ScratchPod, programs};

    const CILIUM: &str = "ip link add cilium_host type veth peer name cilium_net";

    /// A node without a keeper, so that every step is the test's own.
    fn kernel(netns: PodNetns) -> Kernel {
        let runner = Runner::new(Fence::new(1).unwrap(), Handle::current());
        Kernel::new(runner, netns, programs().nft)
    }

    fn ways(node: &ScratchPod) -> [bool; 2] {
        let shown = ["ip route show table local", "ip -6 route show table local"]
            .map(|command| node.run(command));
        [shown[0].contains("local 169.254.7.127"), shown[1].contains("local fd16:9254:7127:1337:")]
    }

    #[tokio::test]
    async fn where_cilium_routes_a_second_look_makes_nothing_and_removal_goes_twice() {
        let node = ScratchPod::new();
        let kernel = kernel(node.netns());
        assert!(!ensure(&kernel).await.unwrap(), "nobody drops answers here");
        node.run(CILIUM);
        assert!(ensure(&kernel).await.unwrap());
        assert!(!ensure(&kernel).await.unwrap(), "nothing is missing");
        for taken in ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"] {
            node.run(&format!("ip route del local {taken} dev lo table local"));
            assert!(present(&kernel).await.unwrap(), "the other one is enough");
            assert!(ensure(&kernel).await.unwrap(), "{taken} was missing");
        }
        assert_eq!(ways(&node), [true; 2]);
        remove(&kernel).await.unwrap();
        assert!(!present(&kernel).await.unwrap());
        remove(&kernel).await.unwrap();
        assert_eq!(ways(&node), [false; 2]);
    }

    #[tokio::test]
    async fn where_cilium_routes_and_ipv6_is_off_only_ipv4_has_a_way() {
        let node = ScratchPod::new();
        let kernel = kernel(node.netns());
        node.run(CILIUM);
        node.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
        assert!(ensure(&kernel).await.unwrap());
        assert!(!ensure(&kernel).await.unwrap());
        assert_eq!(ways(&node), [true, false]);
        assert!(present(&kernel).await.unwrap());
        remove(&kernel).await.unwrap();
        remove(&kernel).await.unwrap();
        assert_eq!(ways(&node), [false; 2]);
        assert!(!present(&kernel).await.unwrap());
    }

    #[tokio::test]
    async fn where_cilium_routes_somebody_elses_way_does_and_is_left_alone() {
        let node = ScratchPod::new();
        let kernel = kernel(node.netns());
        node.run(CILIUM);
        for theirs in ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"] {
            node.run(&format!("ip route add local {theirs} dev lo table local proto boot"));
        }
        assert!(!ensure(&kernel).await.unwrap());
        assert!(!present(&kernel).await.unwrap(), "an uninstall does not wait for it");
        remove(&kernel).await.unwrap();
        assert_eq!(ways(&node), [true; 2]);
    }

    #[tokio::test]
    async fn a_node_without_any_route_has_none_of_ours() {
        let kernel = kernel(PodNetns::scratch().unwrap());
        assert!(!present(&kernel).await.unwrap());
        remove(&kernel).await.unwrap();
    }
}
