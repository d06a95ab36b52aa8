//! What a pod does not do for everybody at once, and not in vain.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stories::{connected, exchange};
use super::world::{World, refused, soon};
use crate::proxy::{Limits, PodProxy, Settings};

fn limited(limits: Limits) -> World {
    World::with(Settings { limits, ..Settings::default() })
}

async fn idle(proxy: &PodProxy) {
    soon(async {
        while proxy.connections() != crate::proxy::Connections::default() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gave_up_while_it_waited_is_not_dialled_for() {
    let world = World::new();
    // Its connections wait for the view, as they would for a ztunnel that stands still.
    let client = world.start(&world.client).await.unwrap();
    world.server.run("nft", &["flush ruleset"]);
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let gone = world.client.dial(to).await.unwrap();
    gone.set_zero_linger().unwrap();
    drop(gone);
    world.publish_with(&[], |server| server.addresses = mesh::Addresses::default());
    idle(&client).await;
    let seen = timeout(Duration::from_millis(100), app.accept()).await;
    assert!(seen.is_err(), "the application was dialled in vain");
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_so_many_connections_and_no_more() {
    let limits = Limits { inbound_connections: 2, outbound_connections: 3, ..Limits::default() };
    let world = limited(limits);
    world.publish(&[]);
    let client = world.start(&world.client).await.unwrap();
    let server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    let plain = connected(world.client.dial_uncaptured(to), &app).await;
    // The server's limit, for both kinds.
    refused(world.client.dial_uncaptured(to)).await;
    refused(world.client.dial(to)).await;
    exchange(&mut near, &mut far).await;
    drop(plain);
    soon(async {
        while server.connections().inbound > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut next, mut next_far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut next, &mut next_far).await;
    drop((near, far, next, next_far));
    idle(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_finish_their_handshakes_block_no_tunnel() {
    let world = limited(Limits { handshakes_per_peer: 2, ..Limits::default() });
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let hbone = |ip| SocketAddr::new(ip, zds::port::INBOUND_HBONE);
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..2 {
        silent.push(world.client.dial_uncaptured(hbone(world.server.v6)).await.unwrap());
    }
    refused(world.client.dial_uncaptured(hbone(world.server.v6))).await;
    // Another address is another neighbour.
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut near, &mut far).await;
    drop(silent);
}
