//! Workloads that are known by name only.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::{RData, Record, RecordType};
use mesh::{IpFamilies, Protocol, Service, Workload};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::services::{cart, endpoint, publish, unheard, vips};
use super::stories::{connected, exchange};
use super::world::{World, refused};
use crate::dns::Upstreams;
use crate::proxy::{PodProxy, Settings};

/// Both pods, the client's with a resolver that answers with these addresses.
struct Named {
    world: World,
    _proxies: [PodProxy; 2],
    _resolver: AbortOnDropHandle<()>,
}

impl Named {
    async fn new(addresses: impl FnOnce(&World) -> Vec<IpAddr>) -> Self {
        let mut settings = Settings::default();
        let resolver = SocketAddr::new("10.77.0.3".parse().unwrap(), 53);
        settings.dns.upstreams = Upstreams::new(&[resolver]);
        let world = World::with(settings);
        assert_eq!(world.middle.v4, resolver.ip());
        world.middle.run("nft", &["flush", "ruleset"]);
        let socket = world.middle.listen_udp(53);
        let answers = tokio::spawn(answer(socket, addresses(&world)));
        let client = world.start(&world.client).await.unwrap();
        let proxies = [client, world.start(&world.server).await.unwrap()];
        Self { world, _proxies: proxies, _resolver: AbortOnDropHandle::new(answers) }
    }

    /// The server, without addresses.
    fn server(&self) -> Workload {
        endpoint(self.world.server.workload()).with(|it| {
            it.addresses = mesh::Addresses::default();
            it.hostname = "cart.test".into();
        })
    }
}

async fn answer(socket: UdpSocket, addresses: Vec<IpAddr>) {
    let mut buffer = [0; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let asked = query.queries[0].clone();
        assert_eq!(asked.name().to_ascii().trim_end_matches('.'), "cart.test");
        let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        for ip in &addresses {
            let data = match (ip, asked.query_type()) {
                (IpAddr::V4(v4), RecordType::A) => RData::A((*v4).into()),
                (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA((*v6).into()),
                _ => continue,
            };
            reply.add_answer(Record::from_rdata(asked.name().clone(), 0, data));
        }
        reply.add_query(asked);
        socket.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
    }
}

fn both(world: &World) -> Vec<IpAddr> {
    vec![world.server.v4, world.server.v6]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_looked_up_and_reached_by_tunnel_in_the_family_that_was_dialled() {
    let named = Named::new(both).await;
    let Named { world, _proxies: [_, server], .. } = &named;
    publish(world, cart(), named.server());
    let app = world.server.listen(8080);
    for (vip, expected) in vips().into_iter().zip(both(world)) {
        let (mut near, mut far, _) = connected(world.client.dial(vip), &app).await;
        assert_eq!(far.local_addr().unwrap().ip().to_canonical(), expected);
        exchange(&mut near, &mut far).await;
        assert_ne!(server.connections().inbound, 0, "by way of the server's ztunnel");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_that_the_service_or_the_name_lacks_is_not_used() {
    let named = Named::new(both).await;
    let world = &named.world;
    publish(world, Service { ip_families: IpFamilies::V4, ..cart() }, named.server());
    let app = world.server.listen(8080);
    let (_near, far, _) = connected(world.client.dial(vips()[1]), &app).await;
    assert_eq!(far.local_addr().unwrap().ip().to_canonical(), world.server.v4);
    drop(named);
    let named = Named::new(|world| vec![world.server.v6]).await;
    let world = &named.world;
    publish(world, cart(), named.server());
    let app = world.server.listen(8080);
    let (_near, far, _) = connected(world.client.dial(vips()[0]), &app).await;
    assert_eq!(far.local_addr().unwrap().ip(), world.server.v6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_outside_the_mesh_is_reached_in_clear() {
    let named = Named::new(both).await;
    let Named { world, _proxies: [_, server], .. } = &named;
    publish(world, cart(), named.server().with(|it| it.protocol = Protocol::Plain));
    world.server.run("nft", &["flush", "ruleset"]);
    let app = world.server.listen(8080);
    for vip in vips() {
        let (mut near, mut far, _) = connected(world.client.dial(vip), &app).await;
        exchange(&mut near, &mut far).await;
    }
    assert_eq!(server.connections().inbound, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_without_a_use_is_a_reset() {
    let bad = ["127.0.0.1", "::1", "169.254.169.254"].map(|ip| ip.parse().unwrap());
    for addresses in [Vec::new(), bad.to_vec()] {
        let named = Named::new(|_| addresses).await;
        let world = &named.world;
        let app = world.client.listen(8080);
        for protocol in [Protocol::Hbone, Protocol::Plain] {
            publish(world, cart(), named.server().with(|it| it.protocol = protocol));
            for vip in vips() {
                refused(world.client.dial(vip)).await;
            }
        }
        unheard(&app).await;
    }
}
