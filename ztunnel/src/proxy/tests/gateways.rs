//! A server in another network, behind a gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use mesh::{Gateway, GatewayDestination, Identity, Service, View, Workload};
use tokio::io::copy_bidirectional;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::services::{cart, endpoint, unheard, vips};
use super::stories::{connected, exchange};
use super::world::{PATIENCE, TestPod, World, deny, refused, soon};
use crate::hbone::{self, ServerTunnel};
use crate::tls;

const HOST: &str = "cart.shop.svc.cluster.local:80";

/// What a request said.
type Seen = mpsc::UnboundedReceiver<(String, HeaderMap)>;

/// A gateway in the middle, which knows nothing but the way to the server.
fn gateway(world: &World) -> (AbortOnDropHandle<()>, Seen) {
    world.middle.run("nft", &["flush", "ruleset"]);
    let listener = world.middle.listen(15008);
    let credentials = world.ca.credentials(&world.middle.identity());
    let (sender, seen) = mpsc::unbounded_channel();
    let (middle, to) = (world.middle.clone(), SocketAddr::new(world.server.v4, 15008));
    let task = tokio::spawn(async move {
        let middle = Arc::new(middle);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let secured = tls::accept(&credentials, tcp, PATIENCE).await;
            let Ok((stream, _)) = secured else { continue };
            tokio::spawn(serve(stream, Arc::clone(&middle), to, sender.clone()));
        }
    });
    (AbortOnDropHandle::new(task), seen)
}

async fn serve(
    stream: tls::Stream<tokio::net::TcpStream>,
    middle: Arc<TestPod>,
    to: SocketAddr,
    sender: mpsc::UnboundedSender<(String, HeaderMap)>,
) {
    let settings = hbone::Settings::default();
    let mut tunnel = ServerTunnel::accept(stream, &settings, PATIENCE).await.unwrap();
    while let Ok(Some(incoming)) = tunnel.next().await {
        let said = (incoming.authority().unwrap().to_owned(), incoming.headers().clone());
        let _ = sender.send(said);
        let middle = Arc::clone(&middle);
        tokio::spawn(async move {
            let Ok(mut tcp) = middle.dial_uncaptured(to).await else { return };
            let mut stream = incoming.accept(HeaderMap::new()).unwrap().into_io();
            let _ = copy_bidirectional(&mut stream, &mut tcp).await;
        });
    }
}

/// The client in one network, the server in another, whose gateway is in the middle.
fn publish(world: &World, service: Service, change: impl FnOnce(&mut Workload)) {
    let destination = GatewayDestination::Address { network: "near".into(), ip: world.middle.v4 };
    let gateway = Gateway { destination, hbone_port: 15008 };
    let server = endpoint(world.server.workload()).with(|it| {
        it.network = "far".into();
        it.network_gateway = Some(gateway.into());
        change(it);
    });
    let near = |pod: &TestPod| pod.workload().with(|it| it.network = "near".into());
    let mut service = service;
    for address in &mut service.addresses {
        address.network = "near".into();
    }
    let mut view = View::default();
    view.insert_service(service);
    view.insert_workload(near(&world.client));
    view.insert_workload(near(&world.middle));
    view.insert_workload(server);
    world.writer.publish(view);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_another_network_is_reached_through_its_gateway_unseen_by_that() {
    let (world, client, server) = World::started().await;
    publish(&world, cart(), |_| ());
    let (_gateway, mut seen) = gateway(&world);
    let app = world.server.listen(8080);
    for vip in vips() {
        let (mut near, mut far, _) = connected(world.client.dial(vip), &app).await;
        exchange(&mut near, &mut far).await;
        assert_eq!(client.connections().outbound, 1);
        assert_eq!(server.connections().inbound, 1);
        let (authority, headers) = soon(seen.recv()).await.unwrap();
        assert_eq!(authority, HOST);
        assert!(headers.get("x-forwarded-network").is_none(), "it is for the other end");
        drop((near, far));
        soon(async {
            while client.connections().outbound + server.connections().inbound > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_gateway_the_client_is_known_by_its_own_certificate() {
    let (world, _client, _server) = World::started().await;
    publish(&world, cart(), |_| ());
    let (_gateway, _seen) = gateway(&world);
    let app = world.server.listen(8080);
    let (mut near, _far, _) = connected(world.client.dial(vips()[0]), &app).await;
    world.publish(&[deny(Some(&world.client.identity()))]);
    super::world::torn(&mut near).await;
    // The gateway's identity is not the one that counts.
    publish(&world, cart(), |_| ());
    let mut view = View::clone(&world.context.view.current().unwrap());
    let policy = deny(Some(&world.middle.identity()));
    view.insert_policy(mesh::Policy::try_from(policy).unwrap());
    world.writer.publish(view);
    let (mut near, mut far, _) = connected(world.client.dial(vips()[0]), &app).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_behind_a_gateway_must_be_the_workload_or_whom_the_service_names() {
    let (world, _client, _server) = World::started().await;
    let (_gateway, _seen) = gateway(&world);
    let app = world.server.listen(8080);
    let other = Identity::new("", "shop", "other").unwrap();
    publish(&world, cart(), |server| server.identity = other.clone());
    refused(world.client.dial(vips()[0])).await;
    unheard(&app).await;
    // The pod itself is looked up by its account, so another workload plays the endpoint.
    let subject_alt_names = vec![world.server.identity()];
    publish(&world, Service { subject_alt_names, ..cart() }, |server| {
        let addresses = server.addresses.clone();
        let elsewhere = Workload::new("elsewhere", "shop", server.name(), other);
        *server = endpoint(elsewhere).with(|it| {
            it.addresses = addresses;
            it.protocol = server.protocol;
            it.network = server.network.clone();
            it.network_gateway = server.network_gateway.clone();
        });
    });
    let mut view = View::clone(&world.context.view.current().unwrap());
    view.insert_workload(endpoint(world.server.workload()).with(|it| {
        it.network = "far".into();
        it.health = mesh::Health::Unhealthy;
    }));
    world.writer.publish(view);
    let (mut near, mut far, _) = connected(world.client.dial(vips()[0]), &app).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_somebody_else_gets_nothing() {
    let (world, _client, _server) = World::started().await;
    publish(&world, cart(), |_| ());
    let mut view = View::clone(&world.context.view.current().unwrap());
    let identity = Identity::new("", "shop", "other").unwrap();
    view.insert_workload(world.middle.workload().with(|it| {
        it.network = "near".into();
        it.identity = identity;
    }));
    world.writer.publish(view);
    let (_gateway, mut seen) = gateway(&world);
    refused(world.client.dial(vips()[0])).await;
    assert!(seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inner_request_tells_the_service_and_the_clients_network_and_is_never_shared() {
    let world = World::new();
    let _client = world.start(&world.client).await.unwrap();
    publish(&world, cart(), |_| ());
    let (_gateway, mut outer) = gateway(&world);
    let listener = world.server.listen(15008);
    let credentials = world.ca.credentials(&world.server.identity());
    for _ in 0..2 {
        let _near = world.client.dial(vips()[0]).await.unwrap();
        let (tcp, _) = soon(listener.accept()).await.unwrap();
        let (stream, client) = soon(tls::accept(&credentials, tcp, PATIENCE)).await.unwrap();
        assert_eq!(client.identity, world.client.identity());
        let settings = hbone::Settings::default();
        let mut tunnel = soon(ServerTunnel::accept(stream, &settings, PATIENCE)).await.unwrap();
        let incoming = soon(tunnel.next()).await.unwrap().unwrap();
        assert_eq!(incoming.authority(), Some(HOST));
        let headers = incoming.headers();
        assert_eq!(headers["x-forwarded-network"], "near");
        let baggage = headers["baggage"].to_str().unwrap();
        assert!(baggage.contains("k8s.namespace.name=shop"), "{baggage}");
        soon(outer.recv()).await.unwrap();
    }
}
