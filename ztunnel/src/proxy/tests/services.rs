//! Applications dial services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use mesh::{
    Gateway, GatewayDestination, Health, Membership, Service, ServiceAddress, ServiceKey,
    ServicePort, View, Workload,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::world::{PATIENCE, World, refused, soon};
use crate::tls;

/// Within the wire's own subnets, so that there is a route.
pub(super) const VIPS: [&str; 2] = ["10.77.0.100", "fd77::100"];

pub(super) fn key() -> ServiceKey {
    ServiceKey::parse("shop/cart.shop.svc.cluster.local").unwrap()
}

pub(super) fn cart() -> Service {
    let address =
        |ip: &str| ServiceAddress { network: "".into(), net: ip.parse::<IpAddr>().unwrap().into() };
    Service {
        addresses: VIPS.map(address).into(),
        ports: [ServicePort { service_port: 80, target_port: 8080 }].into(),
        ..Service::new(key())
    }
}

pub(super) fn endpoint(workload: Workload) -> Workload {
    let membership = Membership { service: key(), ports: Box::default() };
    workload.with(|it| it.services = [membership].into())
}

pub(super) fn publish(world: &World, service: Service, server: Workload) {
    let mut view = View::default();
    view.insert_service(service);
    view.insert_workload(world.client.workload());
    view.insert_workload(server);
    world.writer.publish(view);
}

pub(super) fn vips() -> [SocketAddr; 2] {
    VIPS.map(|ip| SocketAddr::new(ip.parse().unwrap(), 80))
}

pub(super) async fn unheard(app: &TcpListener) {
    let seen = timeout(Duration::from_millis(100), app.accept()).await;
    assert!(seen.is_err(), "it reached an application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_leads_to_its_workload_at_the_port_where_that_listens() {
    let (world, _client, server) = World::started().await;
    publish(&world, cart(), endpoint(world.server.workload()));
    let app = world.server.listen(8080);
    for (vip, from) in vips().into_iter().zip([world.client.v4, world.client.v6]) {
        let mut near = world.client.dial(vip).await.unwrap();
        let (mut far, peer) = soon(app.accept()).await.unwrap();
        assert_eq!(peer.ip().to_canonical(), from);
        assert_eq!(far.local_addr().unwrap().ip().to_canonical().is_ipv4(), vip.is_ipv4());
        near.write_all(b"?").await.unwrap();
        assert_eq!(soon(far.read_u8()).await.unwrap(), b'?');
        assert_eq!(server.connections().inbound, 1, "by way of the server's ztunnel");
        drop((near, far));
        soon(async {
            while server.connections().inbound > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dialled_is_told_from_whom_it_reached() {
    let (world, _client, _server) = World::started().await;
    publish(&world, cart(), endpoint(world.server.workload()));
    let app = world.server.listen(8080);
    for (vip, ip) in vips().into_iter().zip([world.server.v4, world.server.v6]) {
        let near = world.client.dial(vip).await.unwrap();
        let (far, _) = soon(app.accept()).await.unwrap();
        let open = world.context.telemetry.open_connections();
        let of = |pod: &str| open[&("shop".into(), pod.into())].last().unwrap();
        let (out, inside) = (of("client"), of("server"));
        let (target, hop) = (SocketAddr::new(ip, 8080), Some(SocketAddr::new(ip, 15008)));
        assert_eq!((out.dialled, out.dst, out.hbone_addr), (vip, target, hop));
        assert_eq!((inside.dialled, inside.dst, inside.hbone_addr), (target, target, hop));
        assert_eq!((&out.service, &inside.service), (&Some(key()), &Some(key())));
        drop((near, far));
        soon(async {
            while !world.context.telemetry.open_connections().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_which_nobody_is_healthy_is_a_reset() {
    let (world, _client, _server) = World::started().await;
    let sick = world.server.workload().with(|it| it.health = Health::Unhealthy);
    publish(&world, cart(), endpoint(sick));
    let app = world.server.listen(8080);
    for vip in vips() {
        refused(world.client.dial(vip)).await;
    }
    unheard(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waypoint_is_asked_for_the_service_that_was_dialled() {
    let world = World::new();
    let _client = world.start(&world.client).await.unwrap();
    let destination = GatewayDestination::Address { network: "".into(), ip: world.server.v4 };
    let waypoint = Some(Gateway { destination, hbone_port: 15008 });
    publish(&world, Service { waypoint, ..cart() }, endpoint(world.server.workload()));
    // The server's pod is the waypoint, with a tunnel's end of its own.
    let listener = world.server.listen(15008);
    let app = world.server.listen(8080);
    let mut near = world.client.dial(vips()[0]).await.unwrap();
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    let credentials = world.ca.credentials(&world.server.identity());
    let (stream, client) = soon(tls::accept(&credentials, tcp, PATIENCE)).await.unwrap();
    assert_eq!(client.identity, world.client.identity());
    let mut peer = soon(h2::server::handshake(stream)).await.unwrap();
    let (request, mut answer) = soon(peer.accept()).await.unwrap().unwrap();
    assert_eq!(request.uri().authority().unwrap().as_str(), "10.77.0.100:80");
    let ok = Response::builder().status(StatusCode::OK).body(()).unwrap();
    let mut stream = answer.send_response(ok, false).unwrap();
    stream.send_data(Bytes::from_static(b"!"), false).unwrap();
    let driver = tokio::spawn(async move { peer.accept().await.is_none() });
    assert_eq!(soon(near.read_u8()).await.unwrap(), b'!');
    unheard(&app).await;
    driver.abort();
}
