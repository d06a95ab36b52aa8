//! What applications see.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::world::{World, deny, refused, soon, torn};
use crate::proxy::{Connections, Drain, ProxyError, Settings};

/// Both ends of a connection that `dial` opens to the application behind `app`.
pub(super) async fn connected(
    dial: impl Future<Output = std::io::Result<TcpStream>>,
    app: &TcpListener,
) -> (TcpStream, TcpStream, SocketAddr) {
    let (near, (far, peer)) =
        soon(async { (dial.await.unwrap(), app.accept().await.unwrap()) }).await;
    (near, far, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// A byte there and a byte back.
pub(super) async fn exchange(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"?").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'?');
    far.write_all(b"!").await.unwrap();
    assert_eq!(soon(near.read_u8()).await.unwrap(), b'!');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_captured_pods_speak_through_a_tunnel_and_the_server_sees_the_client() {
    let (world, client, server) = World::started().await;
    let app = world.server.listen(8080);
    for (to, from) in [(world.server.v4, world.client.v4), (world.server.v6, world.client.v6)] {
        let dial = world.client.dial(SocketAddr::new(to, 8080));
        let (mut near, mut far, peer) = connected(dial, &app).await;
        assert_eq!(peer.ip(), from);
        exchange(&mut near, &mut far).await;
        assert_eq!(client.connections(), Connections { inbound: 0, outbound: 1 });
        assert_eq!(server.connections(), Connections { inbound: 1, outbound: 0 });
        near.shutdown().await.unwrap();
        assert_eq!(soon(far.read(&mut [0])).await.unwrap(), 0);
        far.write_all(b"last words").await.unwrap();
        far.shutdown().await.unwrap();
        let mut text = String::new();
        soon(near.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "last words");
        soon(async {
            while client.connections().outbound + server.connections().inbound > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_from_outside_arrives_with_the_callers_address() {
    let world = World::new();
    world.publish(&[]);
    let server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    for (to, from) in [(world.server.v4, world.client.v4), (world.server.v6, world.client.v6)] {
        let dial = world.client.dial_uncaptured(SocketAddr::new(to, 8080));
        let (mut near, mut far, peer) = connected(dial, &app).await;
        assert_eq!(peer.ip(), from);
        exchange(&mut near, &mut far).await;
        assert_eq!(server.connections().inbound, 1);
        drop((near, far));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_outside_the_mesh_is_passed_through() {
    let world = World::new();
    world.publish_with(&[], |server| server.addresses = mesh::Addresses::default());
    let client = world.start(&world.client).await.unwrap();
    world.server.run("nft", &["flush ruleset"]);
    let app = world.server.listen(8080);
    let dial = world.client.dial(SocketAddr::new(world.server.v4, 8080));
    let (mut near, mut far, _) = connected(dial, &app).await;
    exchange(&mut near, &mut far).await;
    assert_eq!(client.connections().outbound, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_whose_workload_was_rejected_gets_no_clear_text() {
    let world = World::new();
    let mut view = mesh::View::default();
    view.insert_workload(world.client.workload());
    let octets = |ip| match ip {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let message = mesh::proto::workload::Workload {
        addresses: vec![octets(world.server.v4), octets(world.server.v6)],
        ..Default::default()
    };
    view.reject_workload("server", &message);
    world.writer.publish(view);
    let _client = world.start(&world.client).await.unwrap();
    world.server.run("nft", &["flush ruleset"]);
    let app = world.server.listen(8080);
    for to in [world.server.v4, world.server.v6] {
        refused(world.client.dial(SocketAddr::new(to, 8080))).await;
    }
    let seen = timeout(Duration::from_millis(100), app.accept()).await;
    assert!(seen.is_err(), "clear text reached the application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_connection_is_reset_and_the_application_never_sees_it() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    world.publish(&[deny(Some(&world.client.identity()))]);
    refused(world.client.dial(to)).await;
    // Without an identity the same client is another one.
    let (mut near, mut far, _) = connected(world.client.dial_uncaptured(to), &app).await;
    exchange(&mut near, &mut far).await;
    world.publish(&[deny(None)]);
    torn(&mut near).await;
    refused(world.client.dial_uncaptured(to)).await;
    let seen = timeout(Duration::from_millis(100), app.accept()).await;
    assert!(seen.is_err(), "a denied connection reached the application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_policy_cuts_what_it_no_longer_allows_and_nothing_else() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut tunnelled, mut far, _) = connected(world.client.dial(to), &app).await;
    let (mut plain, mut plain_far, _) = connected(world.client.dial_uncaptured(to), &app).await;
    world.publish(&[deny(Some(&world.client.identity()))]);
    torn(&mut tunnelled).await;
    torn(&mut far).await;
    exchange(&mut plain, &mut plain_far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_has_not_arrived_is_waited_for() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let select = |server: &mut mesh::Workload| {
        server.policies = [mesh::PolicyKey::parse("shop/deny").unwrap()].into();
    };
    world.publish_with(&[], select);
    let mut near = world.client.dial(to).await.unwrap();
    let early = timeout(Duration::from_millis(200), near.read_u8()).await;
    assert!(early.is_err(), "it was decided without the policy");
    let mut policy = deny(Some(&world.server.identity()));
    policy.scope = mesh::proto::security::Scope::WorkloadSelector.into();
    world.publish_with(&[policy], select);
    let (mut far, _) = soon(app.accept()).await.unwrap();
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_let_policies_that_have_not_arrived_mean_nothing() {
    let unknown_policy = mesh::UnknownPolicy::Skip;
    let world = World::with(Settings { unknown_policy, ..Settings::default() });
    world.publish_with(&[], |server| {
        server.policies = [mesh::PolicyKey::parse("shop/deny").unwrap()].into();
    });
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let mut near = world.client.dial(SocketAddr::new(world.server.v4, 8080)).await.unwrap();
    let (mut far, _) = soon(app.accept()).await.unwrap();
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_view_is_complete_connections_wait_and_are_then_refused() {
    let world = World::new();
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (out, plain) = (world.client.dial(to), world.client.dial_uncaptured(to));
    tokio::join!(refused(out), refused(plain));
    // One that comes shortly before the view is served with it.
    let mut near = world.client.dial(to).await.unwrap();
    let early = timeout(Duration::from_millis(200), near.read_u8()).await;
    assert!(early.is_err(), "it was decided without a view");
    world.publish(&[]);
    let (mut far, _) = soon(app.accept()).await.unwrap();
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_own_ports_lead_nowhere() {
    let (world, _client, _server) = World::started().await;
    // Past the rules, straight to the listeners.
    for port in [15001, 15006] {
        let own = SocketAddr::new(world.client.v4, port);
        refused(world.client.dial(own)).await;
    }
    // A peer's ports: the peer refuses.
    for port in [15001, 15006, 15008] {
        let peers = SocketAddr::new(world.server.v4, port);
        refused(world.client.dial(peers)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_does_not_listen_is_a_reset() {
    let (world, _client, _server) = World::started().await;
    let to = SocketAddr::new(world.server.v4, 8080);
    refused(world.client.dial(to)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_stop_cuts_everything_and_frees_the_ports() {
    let (world, _client, server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut tunnelled, mut far, _) = connected(world.client.dial(to), &app).await;
    let (mut plain, _plain_far, _) = connected(world.client.dial_uncaptured(to), &app).await;
    soon(server.stop(Drain::Immediate)).await;

    torn(&mut tunnelled).await;

    torn(&mut far).await;

    torn(&mut plain).await;
    world.start(&world.server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_lets_connections_finish() {
    let (world, _client, server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut near, &mut far).await;
    let stop = tokio::spawn(server.stop(Drain::Graceful(Duration::from_secs(60))));
    // The ports are free for the next one while the old one drains.
    let next = soon(async {
        loop {
            if let Ok(proxy) = world.start(&world.server).await {
                return proxy;
            }
        }
    })
    .await;
    exchange(&mut near, &mut far).await;
    let (mut newer, mut newer_far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut newer, &mut newer_far).await;
    assert_eq!(next.connections().inbound, 1);
    near.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    soon(stop).await.unwrap();
    exchange(&mut newer, &mut newer_far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_ends_at_its_deadline() {
    let (world, client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    soon(client.stop(Drain::Graceful(Duration::from_millis(100)))).await;
    torn(&mut near).await;
    torn(&mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_an_application_holds_is_named() {
    let world = World::new();
    let _app = world.server.listen(15006);
    let error = world.start(&world.server).await.unwrap_err();
    assert!(matches!(&error, ProxyError::Listen { port: 15006, .. }), "{error}");
    assert!(error.to_string().starts_with("pod shop/server: listen on port 15006:"), "{error}");
    // The others are free again, and the client is not concerned.
    world.server.listen(15001);
    world.start(&world.client).await.unwrap();
}

/// Writes until nobody takes any more.
async fn fill(end: &mut TcpStream) {
    let chunk = vec![0; 1 << 20];
    while timeout(Duration::from_millis(300), end.write_all(&chunk)).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_dies_is_noticed_though_the_other_does_not_read() {
    let (world, client, server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut tunnelled, far, _) = connected(world.client.dial(to), &app).await;
    let (mut plain, plain_far, _) = connected(world.client.dial_uncaptured(to), &app).await;
    tokio::join!(fill(&mut tunnelled), fill(&mut plain));
    for near in [tunnelled, plain] {
        near.set_zero_linger().unwrap();
        drop(near);
    }
    soon(async {
        while client.connections().outbound + server.connections().inbound > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((far, plain_far));
}
