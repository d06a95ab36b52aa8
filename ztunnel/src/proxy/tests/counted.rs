//! What operators can count of what applications do.

use std::net::SocketAddr;

use prometheus_client::registry::Registry;

use super::stories::{connected, exchange};
use super::world::{World, counted};
use crate::tls::Terms;

/// How often a histogram with this label was filled.
fn times(registry: &Registry, name: &str, label: &str) -> u64 {
    counted(registry, &format!("{name}_count"), label).values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_takes_to_reach_peers_and_applications_is_measured() {
    let mut registry = Registry::default();
    let world = World::under(&Terms::default(), &mut registry);
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    // Twice by one tunnel, and once without.
    for _ in 0..2 {
        let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
        exchange(&mut near, &mut far).await;
    }
    let (mut near, mut far, _) = connected(world.client.dial_uncaptured(to), &app).await;
    exchange(&mut near, &mut far).await;
    let connect = |to: &str| times(&registry, "sluice_connect_seconds", &format!("to=\"{to}\""));
    let side = |it: &str| times(&registry, "sluice_handshake_seconds", &format!("side=\"{it}\""));
    assert_eq!((connect("peer"), side("client"), side("server")), (1, 1, 1));
    assert_eq!(connect("application"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_nobody_known_is_counted() {
    let mut registry = Registry::default();
    let world = World::under(&Terms::default(), &mut registry);
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let strangers = || -> u64 {
        let name = "sluice_passthrough_unknown_destination_total";
        counted(&registry, name, "").values().sum()
    };
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut near, &mut far).await;
    assert_eq!(strangers(), 0, "the server is in the mesh");
    world.middle.run("nft", &["flush ruleset"]);
    let outside = world.middle.listen(8080);
    let to = SocketAddr::new(world.middle.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &outside).await;
    exchange(&mut near, &mut far).await;
    assert_eq!(strangers(), 1);
}
