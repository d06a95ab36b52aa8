//! Pods that take the traffic of others, and pods that want theirs in another place.

use std::net::{IpAddr, SocketAddr};

use mesh::{ApplicationTunnel, Gateway, GatewayDestination, Service, TunnelledProtocol, View};
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::services::{cart, endpoint, unheard, vips};
use super::stories::{connected, exchange};
use super::world::{World, deny, refused, soon};
use crate::proxy::{AppTunnel, Settings};

pub(super) const TUNNEL: u16 = 15088;

pub(super) fn tunnel(protocol: TunnelledProtocol) -> Option<ApplicationTunnel> {
    Some(ApplicationTunnel { protocol, port: Some(TUNNEL) })
}

/// The middle is the waypoint of the service, the server is behind it.
pub(super) fn publish(world: &World, application_tunnel: Option<ApplicationTunnel>) {
    let destination = GatewayDestination::Address { network: "".into(), ip: world.middle.v4 };
    let waypoint = Some(Gateway { destination, hbone_port: 15008 });
    let mut view = View::default();
    view.insert_service(Service { waypoint, ..cart() });
    view.insert_workload(world.client.workload());
    view.insert_workload(endpoint(world.server.workload()));
    view.insert_workload(
        world.middle.workload().with(|it| it.application_tunnel = application_tunnel),
    );
    world.writer.publish(view);
}

/// Reads the header of the PROXY protocol: who dials whom, and the client's identity.
pub(super) async fn preface(app: &mut TcpStream) -> (SocketAddr, SocketAddr, String) {
    let mut head = [0; 16];
    soon(app.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    soon(app.read_exact(&mut body)).await.unwrap();
    let wide = match head[13] {
        0x11 => 4,
        0x21 => 16,
        other => panic!("family {other}"),
    };
    let ip = |at: usize| match wide {
        4 => IpAddr::from(<[u8; 4]>::try_from(&body[at..at + 4]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap()),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (ports, rest) = (2 * wide, 2 * wide + 4);
    assert_eq!(body[rest], 0xd0);
    assert_eq!(usize::from(port(rest + 1)), body.len() - rest - 3);
    let identity = String::from_utf8(body[rest + 3..].to_vec()).unwrap();
    let from = SocketAddr::new(ip(0), port(ports));
    (from, SocketAddr::new(ip(wide), port(ports + 2)), identity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandwiched_waypoint_hears_who_dials_whom_and_its_own_traffic_goes_on() {
    let (world, _client, server) = World::started().await;
    publish(&world, tunnel(TunnelledProtocol::Proxy));
    let middle = world.start(&world.middle).await.unwrap();
    let (waypoint, app) = (world.middle.listen(TUNNEL), world.server.listen(8080));
    for vip in vips() {
        let mut near = world.client.dial(vip).await.unwrap();
        let (mut inside, peer) = soon(waypoint.accept()).await.unwrap();
        assert!(peer.ip().to_canonical().is_loopback(), "{peer}");
        assert!(inside.local_addr().unwrap().ip().to_canonical().is_loopback());
        let (from, meant, identity) = preface(&mut inside).await;
        // Whatever was dialled, the waypoint is known by its IPv4 address.
        assert_eq!(from.ip().to_canonical(), world.client.v4);
        assert_eq!((meant.ip().to_canonical(), meant.port()), (vip.ip(), vip.port()));
        assert_eq!(identity, world.client.identity().to_string());
        // The second hop: what the waypoint dials is not sent back to it.
        let (mut onward, mut far, seen) = connected(world.middle.dial(vip), &app).await;
        let expected = if vip.is_ipv4() { world.middle.v4 } else { world.middle.v6 };
        assert_eq!(seen.ip(), expected);
        let carrier = tokio::spawn(async move {
            let _ = copy_bidirectional(&mut inside, &mut onward).await;
        });
        exchange(&mut near, &mut far).await;
        assert_eq!((middle.connections().inbound, middle.connections().outbound), (1, 1));
        drop((near, far));
        soon(carrier).await.unwrap();
        soon(async {
            while middle.connections().inbound + server.connections().inbound > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waypoint_that_listens_on_the_pods_address_sees_the_clients() {
    let world = World::with(Settings { app_tunnel: AppTunnel::PodAddress, ..Settings::default() });
    publish(&world, tunnel(TunnelledProtocol::Proxy));
    let _client = world.start(&world.client).await.unwrap();
    let _middle = world.start(&world.middle).await.unwrap();
    let waypoint = world.middle.listen(TUNNEL);
    let (_near, mut inside, peer) = connected(world.client.dial(vips()[0]), &waypoint).await;
    assert_eq!(peer.ip(), world.client.v4);
    assert_eq!(preface(&mut inside).await.1, vips()[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waypoint_without_a_tunnel_gets_the_service_at_its_own_port() {
    let (world, _client, _server) = World::started().await;
    publish(&world, None);
    let _middle = world.start(&world.middle).await.unwrap();
    let waypoint = world.middle.listen(80);
    let (mut near, mut inside, peer) = connected(world.client.dial(vips()[0]), &waypoint).await;
    assert_eq!(peer.ip(), world.client.v4);
    exchange(&mut near, &mut inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_without_a_preface_gets_its_traffic_at_the_tunnels_port() {
    let (world, _client, _server) = World::started().await;
    world.publish_with(&[], |server| {
        server.application_tunnel = tunnel(TunnelledProtocol::None);
    });
    let (app, other) = (world.server.listen(TUNNEL), world.server.listen(8080));
    for (to, from) in [(world.server.v4, world.client.v4), (world.server.v6, world.client.v6)] {
        let dial = world.client.dial(SocketAddr::new(to, 8080));
        let (mut near, mut far, peer) = connected(dial, &app).await;
        assert_eq!(peer.ip(), from);
        exchange(&mut near, &mut far).await;
    }
    unheard(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waypoint_is_guarded_by_its_own_policies() {
    let (world, _client, _server) = World::started().await;
    publish(&world, tunnel(TunnelledProtocol::Proxy));
    let _middle = world.start(&world.middle).await.unwrap();
    let waypoint = world.middle.listen(TUNNEL);
    let mut view = View::clone(&world.context.view.current().unwrap());
    let policy = deny(Some(&world.client.identity()));
    view.insert_policy(mesh::Policy::try_from(policy).unwrap());
    world.writer.publish(view);
    for vip in vips() {
        refused(world.client.dial(vip)).await;
    }
    unheard(&waypoint).await;
}
