//! A client in the mesh reads ztunnel's own metrics.

use std::net::SocketAddr;

use super::services::unheard;
use super::stories::{connected, exchange};
use super::world::{World, deny, refused, soon};
use crate::proxy::PodProxy;

const METRICS: u16 = 15020;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ztunnels_metrics_are_read_by_tunnel_as_policies_allow_and_nothing_else_is() {
    let world = World::new();
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    // The server's pod is ztunnel's own, which nobody captures.
    world.server.run("nft", &["flush", "ruleset"]);
    let pod = world.server.pod();
    let netns = world.server.netns.clone().into();
    let own = PodProxy::start_own(&world.context, pod.info, netns, METRICS);
    let own = soon(own).await.unwrap();
    let metrics = world.server.listen(METRICS);
    let admin = world.server.listen(8080);
    for ip in [world.server.v4, world.server.v6] {
        let dial = world.client.dial(SocketAddr::new(ip, METRICS));
        let (mut near, mut far, peer) = connected(dial, &metrics).await;
        assert_eq!(peer.ip(), ip, "ztunnel asks itself under its own address");
        exchange(&mut near, &mut far).await;
        assert_eq!(own.connections().inbound, 1);
        refused(world.client.dial(SocketAddr::new(ip, 8080))).await;
        drop((near, far));
        soon(async {
            while own.connections().inbound > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    unheard(&admin).await;
    world.publish(&[deny(Some(&world.client.identity()))]);
    refused(world.client.dial(SocketAddr::new(world.server.v4, METRICS))).await;
}
