//! `PROXY_MODE=dedicated`: the program as a process on machines of its own, whose rules
//! capture their traffic.
#![expect(clippy::disallowed_methods, reason = "this room spawns the program under test")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod authority;
mod discovery;
mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use authority::Asked;
use serde_json::Value;
use world::{Exempt, Host, SERVICE, World, Ztunnel};

/// Both ends of a connection from `host` to the application behind `app`, and where the
/// application sees it come from.
fn connected(host: &Host, to: SocketAddr, app: &TcpListener) -> (TcpStream, TcpStream, IpAddr) {
    let near = host.dial(to).unwrap();
    let (far, peer) = app.accept().expect("the connection arrives");
    far.set_read_timeout(Some(world::LIMIT)).unwrap();
    (near, far, peer.ip().to_canonical())
}

/// What ztunnel says of the one workload.
fn machine(ztunnel: &Ztunnel<'_>, uid: &str) -> Value {
    let dump = ztunnel.ask(15000, "GET /config_dump");
    let dump: Value = serde_json::from_str(dump.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(dump["workloadState"].as_object().unwrap().len(), 1, "{dump}");
    dump["workloadState"][uid].clone()
}

/// A byte there and a byte back.
fn exchange(near: &mut TcpStream, far: &mut TcpStream) {
    let mut byte = [0];
    near.write_all(b"?").unwrap();
    far.read_exact(&mut byte).unwrap();
    far.write_all(b"!").unwrap();
    near.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
}

fn refused(host: &Host, to: SocketAddr) {
    let error = match host.dial(to) {
        // A plain read may be interrupted.
        Ok(mut near) => near.read_exact(&mut [0]).expect_err("it is reset"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Connects again and again until one connection is refused: those that come before peers
/// have heard of the end are served.
fn until_refused(host: &Host, to: SocketAddr, app: &TcpListener) {
    app.set_nonblocking(true).unwrap();
    let start = Instant::now();
    while start.elapsed() < world::LIMIT {
        let near = match host.dial(to) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            dialled => dialled.unwrap(),
        };
        near.set_nonblocking(true).unwrap();
        loop {
            match (&near).read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("{other:?}"),
            }
            if app.accept().is_ok() {
                break;
            }
            assert!(start.elapsed() < world::LIMIT, "it is neither served nor refused");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("connections are still served");
}

/// A question for the address of the service.
fn question() -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in "seller.shop.svc.cluster.local".split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[test]
fn two_machines_speak_through_a_tunnel_with_their_own_identities() {
    let world = World::new();
    let buyer = world.start(&world.buyer, Exempt::User, &[]);
    let seller = world.start(&world.seller, Exempt::Mark, &[]);
    let (app, closed) = (world.seller.listen(8080), world.seller.listen(9090));
    for to in [world.seller.v4, world.seller.v6] {
        let to = SocketAddr::new(to, 8080);
        let (mut near, mut far, seen) = connected(&world.buyer, to, &app);
        exchange(&mut near, &mut far);
        assert_eq!(seen, to.ip(), "machines have no routes for answers to foreign addresses");
        let machine = machine(&buyer, "shop/buyer");
        assert_eq!(machine["state"], "Up", "{machine}");
        assert_eq!(machine["info"]["serviceAccount"], "buyer");
        let outbound = machine["connections"]["outbound"].as_array().unwrap();
        assert_eq!(outbound.len(), 1, "ztunnel captures its own: {machine}");
        assert_eq!(outbound[0]["protocol"], "HBONE", "{machine}");
        drop((near, far));
    }
    let idle = &machine(&seller, "shop/seller")["connections"]["outbound"];
    assert_eq!(*idle, Value::Array(vec![]), "ztunnel captures its own");
    let asked = |name: &str| Asked {
        names: vec![format!("spiffe://cluster.local/ns/shop/sa/{name}")],
        token: "Bearer machine-token".to_owned(),
        metadata: false,
    };
    assert_eq!(world.authority.asked(), ["buyer", "seller"].map(asked));
    for ztunnel in [&buyer, &seller] {
        ztunnel.until_logged(&[
            "connection complete",
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/buyer\"",
            "dst.identity=\"spiffe://cluster.local/ns/shop/sa/seller\"",
        ]);
    }
    // Whoever is not the buyer may have what the buyer is denied.
    refused(&world.buyer, SocketAddr::new(world.seller.v4, 9090));
    seller.until_logged(&["direction=\"inbound\"", "9090", "polic"]);
    let to = SocketAddr::new(world.seller.v4, 9090);
    let (mut near, mut far, _) = connected(&world.control, to, &closed);
    exchange(&mut near, &mut far);
    let answer = world.buyer.ask(&question());
    assert!(answer.ends_with(&[10, 96, 0, 10]), "{answer:?}");
    let (mut near, mut far, _) = connected(&world.buyer, SERVICE.parse().unwrap(), &app);
    exchange(&mut near, &mut far);
    let metrics = seller.ask(15020, "GET /metrics");
    assert!(metrics.contains("workload_manager_active_proxy_count 1"), "{metrics}");
    assert!(!buyer.log().contains("WARN") && !seller.log().contains("WARN"), "{}", buyer.log());
}

#[test]
fn rules_that_go_by_marks_let_ztunnel_reach_its_control_plane() {
    let world = World::new();
    let address = format!("https://{}:15012", world.control.v4);
    let root = world.root();
    let xds =
        [("XDS_ADDRESS", address.as_str()), ("XDS_ROOT_CA", root.as_str()), ("LOCAL_XDS", "")];
    let buyer = world.start(&world.buyer, Exempt::Mark, &xds);
    let idle = &machine(&buyer, "shop/buyer")["connections"]["outbound"];
    assert_eq!(*idle, Value::Array(vec![]), "ztunnel captures its own");
    let nodes = world.authority.nodes();
    let node = nodes.first().expect("it says who it is");
    assert_eq!(node.id, "ztunnel~1.1.1.1~buyer.shop~shop.svc.cluster.local");
    assert!(!node.metadata.as_ref().unwrap().fields.contains_key("NODE_NAME"), "{node:?}");
    // On demand it asks for itself.
    drop(buyer);
    let on_demand = [&xds[..], &[("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "false")]];
    let buyer = world.start(&world.buyer, Exempt::Mark, &on_demand.concat());
    let _seller = world.start(&world.seller, Exempt::User, &xds);
    let app = world.seller.listen(8080);
    let to = SocketAddr::new(world.seller.v4, 8080);
    let (mut near, mut far, _) = connected(&world.buyer, to, &app);
    exchange(&mut near, &mut far);
    let outbound = &machine(&buyer, "shop/buyer")["connections"]["outbound"];
    assert_eq!(outbound[0]["protocol"], "HBONE", "{outbound}");
}

#[test]
fn told_to_stop_it_lets_connections_finish_and_takes_no_new_ones() {
    let world = World::new();
    let _buyer = world.start(&world.buyer, Exempt::Mark, &[]);
    let deadline = [("CONNECTION_TERMINATION_DEADLINE", "10m")];
    let mut seller = world.start(&world.seller, Exempt::User, &deadline);
    let app = world.seller.listen(8080);
    let to = SocketAddr::new(world.seller.v4, 8080);
    let (mut near, mut far, _) = connected(&world.buyer, to, &app);
    exchange(&mut near, &mut far);
    seller.terminate();
    seller.until_ready("ztunnel is stopping");
    until_refused(&world.buyer, to, &app);
    exchange(&mut near, &mut far);
    drop((near, far));
    assert_eq!(seller.ended().code(), Some(0), "{}", seller.log());
    assert!(seller.log().contains("ztunnel ends"), "{}", seller.log());
}

#[test]
fn where_answers_lead_back_applications_see_the_client() {
    let world = World::new();
    let _buyer = world.start(&world.buyer, Exempt::User, &[]);
    world.seller.lead_answers_back();
    let _seller = world.start(&world.seller, Exempt::Mark, &[("ENABLE_ORIG_SRC", "true")]);
    let app = world.seller.listen(8080);
    for (to, from) in [(world.seller.v4, &world.buyer), (world.seller.v6, &world.control)] {
        let (mut near, mut far, seen) = connected(from, SocketAddr::new(to, 8080), &app);
        exchange(&mut near, &mut far);
        assert_eq!(seen, if to.is_ipv4() { from.v4 } else { from.v6 });
    }
}

#[test]
fn readiness_names_a_machine_that_the_mesh_does_not_know() {
    let world = World::new();
    let nobody = [("PROXY_WORKLOAD_INFO", "shop/buyer/impostor")];
    let ztunnel = world.spawn(&world.buyer, Exempt::User, &nobody);
    let answer = ztunnel.until_ready("shop/buyer");
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    let text = "waiting for workload shop/buyer of service account impostor, this machine, to be \
                known to the mesh";
    assert!(answer.contains(text), "{answer}");
    world.buyer.capture(Exempt::User);
    refused(&world.buyer, SocketAddr::new(world.seller.v4, 8080));
}

#[test]
fn a_port_that_is_taken_ends_it_with_the_port_in_its_last_words() {
    let world = World::new();
    let _taken = world.buyer.listen(15006);
    let info = [("PROXY_WORKLOAD_INFO", "shop/buyer/buyer")];
    let mut ztunnel = world.spawn(&world.buyer, Exempt::Mark, &info);
    assert_eq!(ztunnel.ended().code(), Some(1), "{}", ztunnel.log());
    // It is root's, and was given no mark.
    ztunnel.until_logged(&["run it as a user of its own, or set PACKET_MARK"]);
    ztunnel.until_logged(&["ztunnel failed", "serve this machine", "shop/buyer", "15006"]);
}

#[test]
fn marks_without_the_privilege_are_refused_at_start() {
    let world = World::new();
    let settings = [("PROXY_WORKLOAD_INFO", "shop/buyer/buyer"), ("PACKET_MARK", "7")];
    let mut ztunnel = world.spawn(&world.buyer, Exempt::User, &settings);
    assert_eq!(ztunnel.ended().code(), Some(1), "{}", ztunnel.log());
    ztunnel.until_logged(&["PACKET_MARK", "CAP_NET_ADMIN or CAP_NET_RAW missing"]);
}

#[test]
fn mistakes_in_the_mode_and_in_the_machines_names_are_told_at_once() {
    let world = World::new();
    let settings = [("PROXY_MODE", "sidecar"), ("PROXY_WORKLOAD_INFO", "buyer")];
    let mut ztunnel = world.spawn(&world.buyer, Exempt::User, &settings);
    assert_eq!(ztunnel.ended().code(), Some(2), "{}", ztunnel.log());
    ztunnel.until_logged(&["PROXY_MODE=\"sidecar\": shared or dedicated expected"]);
    ztunnel.until_logged(&["PROXY_WORKLOAD_INFO=\"buyer\": namespace/name/service-account"]);
}

#[test]
fn a_name_server_alone_answers_lookups_and_leaves_connections_to_the_kernel() {
    let world = World::new();
    let _buyer = world.start(&world.buyer, Exempt::User, &[("ENABLE_PROXY", "false")]);
    let answer = world.buyer.ask(&question());
    assert!(answer.ends_with(&[10, 96, 0, 10]), "{answer:?}");
    for port in [15001, 15006, 15008] {
        let error = world.buyer.dial(SocketAddr::new(world.buyer.v4, port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{port}");
    }
    // The rules of the machine send it to a port where nobody is.
    let error = world.buyer.dial(SocketAddr::new(world.seller.v4, 8080)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
