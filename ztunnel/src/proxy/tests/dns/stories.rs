//! What applications of a captured pod see of their lookups.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use mesh::{Service, ServiceAddress, ServiceKey, View};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use super::super::world::soon;
use super::world::{CLOSED, Over, POD, RESOLVERS, Resolver, World, at, frame, read_frame};
use crate::dns::{Family, Mode, ResolveError};
use crate::source::{ViewHandle, channel};

/// Type and class of a question, and its name as labels on the wire.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let labels = name
        .split('.')
        .map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let mut bytes = labels.collect::<Vec<_>>().concat();
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(question(name, kind));
    bytes
}

/// The query as its own answer, and behind it a record whose data is the question.
pub(super) fn echo(query: &[u8], _: Over) -> Option<Vec<u8>> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    Some([answer, query[12..].to_vec()].concat())
}

fn silence(_: &[u8], _: Over) -> Option<Vec<u8>> {
    None
}

fn world(upstreams: &[&str]) -> World {
    let upstreams = World::upstreams(upstreams);
    World::new(ViewHandle::fixed(View::default()), |settings| settings.dns.upstreams = upstreams)
}

pub(super) async fn exchange(socket: &UdpSocket, query: &[u8]) -> Vec<u8> {
    socket.send(query).await.unwrap();
    receive(socket).await
}

pub(super) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_535];
    let length = soon(socket.recv(&mut answer)).await.unwrap();
    answer.truncate(length);
    answer
}

pub(super) fn code(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

#[tokio::test]
async fn lookups_reach_the_resolver_that_was_asked_and_its_answer_comes_from_there() {
    let world = world(&[]);
    let resolvers = RESOLVERS.map(|address| world.resolver(address, echo));
    let _proxy = world.start().await;
    for (address, resolver) in RESOLVERS.iter().zip(&resolvers) {
        let asked = query(0x1234, "example.org", 16);
        // Connected: only an answer from the asked address arrives.
        let answer = exchange(&world.ask(at(address)), &asked).await;
        assert_eq!(answer, echo(&asked, Over::Udp).unwrap(), "{address} over UDP");
        let mut tcp = world.dial(at(address)).await;
        tcp.write_all(&frame(&asked)).await.unwrap();
        assert_eq!(soon(read_frame(&mut tcp)).await.unwrap(), answer, "{address} over TCP");
        let heard = resolver.heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 2, "{address}");
        for heard in heard {
            assert_eq!(heard[2..], asked[2..], "{address}: all but the id is unchanged");
        }
    }
}

#[tokio::test]
async fn a_thousand_lookups_from_one_socket_are_neither_lost_nor_crossed() {
    let world = world(&[]);
    let resolver = world.resolver(RESOLVERS[0], echo);
    let _proxy = world.start().await;
    let socket = world.ask(at(RESOLVERS[0]));
    let names: Vec<_> = (0..1000).map(|n| format!("n{n}.example.org")).collect();
    let mut missing: HashSet<Vec<u8>> = HashSet::new();
    for (id, name) in (0..).zip(&names) {
        let query = query(id, name, 1);
        socket.send(&query).await.unwrap();
        missing.insert(echo(&query, Over::Udp).unwrap());
    }
    while !missing.is_empty() {
        let answer = receive(&socket).await;
        assert!(missing.remove(&answer), "answered twice, or to another question: {answer:?}");
    }
    let sources = resolver.sources.lock().unwrap().len();
    assert!(sources > 500, "source ports are random: {sources} different ones");
}

#[tokio::test]
async fn what_we_do_not_understand_goes_through_byte_for_byte() {
    let world = world(&[]);
    let resolver = world.resolver(RESOLVERS[0], echo);
    let _proxy = world.start().await;
    let socket = world.ask(at(RESOLVERS[0]));
    let opt = [0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 6, 0xfd, 0xe9, 0, 2, 1, 2];
    let with_edns = |mut query: Vec<u8>| {
        query[11] = 1;
        [query, opt.to_vec()].concat()
    };
    let mut update = query(7, "example.org", 6);
    update[2] = 5 << 3;
    let mut chaos = query(8, "version.bind", 16);
    *chaos.last_mut().unwrap() = 3;
    let mut two = query(9, "a", 1);
    two[5] = 2;
    two.extend(question("b", 1));
    // A name that points at itself.
    let mut looped = query(10, "a", 1);
    looped.splice(12..15, [0xc0, 12]);
    let cases = [
        with_edns(query(1, "example.org", 1)),
        with_edns(query(2, "example.org", 65_280)),
        query(3, "_http._tcp.web.shop.svc.cluster.local", 33),
        query(4, "example.org", 255),
        update,
        chaos,
        two,
        looped,
        [query(11, "trailing", 1), vec![0xff; 40]].concat(),
    ];
    for asked in cases {
        let answer = exchange(&socket, &asked).await;
        assert_eq!(answer, echo(&asked, Over::Udp).unwrap());
        let heard = resolver.heard.lock().unwrap().pop().unwrap();
        assert_eq!(heard[2..], asked[2..]);
    }
}

#[tokio::test]
async fn garbage_is_no_lookup_and_does_no_harm() {
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[0], echo);
    let _proxy = world.start().await;
    let socket = world.ask(at(RESOLVERS[0]));
    let mut response = query(1, "example.org", 1);
    response[2] |= 0x80;
    for garbage in [&[][..], &[1], &[0xff; 11], &response] {
        socket.send(garbage).await.unwrap();
    }
    let asked = query(2, "example.org", 1);
    let answer = exchange(&socket, &asked).await;
    assert_eq!(answer[..2], [0, 2], "the first answer is to the first question");
}

#[tokio::test]
async fn a_resolver_that_is_gone_is_a_failure_and_no_silence() {
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[0], silence);
    let _proxy = world.start().await;
    for address in [CLOSED, RESOLVERS[0]] {
        let asked = query(0x77, "example.org", 1);
        let socket = world.ask(at(address));
        let mut tcp = world.dial(at(address)).await;
        tcp.write_all(&frame(&asked)).await.unwrap();
        for answer in [exchange(&socket, &asked).await, soon(read_frame(&mut tcp)).await.unwrap()] {
            assert_eq!(code(&answer), 2, "{address}: SERVFAIL");
            assert_eq!((&answer[..2], &answer[12..]), (&asked[..2], &asked[12..]));
        }
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
    for (name, count) in [("requests", 4), ("upstream_requests", 4), ("upstream_failures", 4)] {
        let lines =
            text.lines().filter(|line| line.starts_with(&format!("istio_dns_{name}_total{{")));
        let counted = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(counted.sum::<u64>(), count, "{text}");
    }
    assert!(text.contains("istio_dns_upstream_request_duration_seconds_count"), "{text}");
}

#[tokio::test]
async fn sixty_four_kibibytes_come_through_on_a_connection() {
    fn long(query: &[u8], over: Over) -> Option<Vec<u8>> {
        let mut answer = echo(query, over)?;
        match over {
            Over::Udp => answer[2] |= 2,
            Over::Tcp => answer.resize(65_535, 0xab),
        }
        Some(answer)
    }
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[1], long);
    let _proxy = world.start().await;
    let asked = query(5, "long.example.org", 16);
    let cut = exchange(&world.ask(at(RESOLVERS[1])), &asked).await;
    assert_eq!(cut[2] & 2, 2, "the client learns that there is more");
    let mut tcp = world.dial(at(RESOLVERS[1])).await;
    // Several questions before the first answer, one of them in two pieces.
    let all: Vec<u8> = (0..8).flat_map(|id| frame(&query(id, "long.example.org", 16))).collect();
    let (first, second) = all.split_at(50);
    tcp.write_all(first).await.unwrap();
    tcp.flush().await.unwrap();
    tcp.write_all(second).await.unwrap();
    let mut ids = HashSet::new();
    for _ in 0..8 {
        let answer = soon(read_frame(&mut tcp)).await.unwrap();
        assert_eq!(
            answer,
            long(&query(u16::from(answer[1]), "long.example.org", 16), Over::Tcp).unwrap()
        );
        ids.insert(answer[1]);
    }
    assert_eq!(ids.len(), 8);
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_believed() {
    fn confused(query: &[u8], over: Over) -> Option<Vec<u8>> {
        // Another question, with the right id, instead of an answer.
        let mut answer = echo(query, over)?;
        answer[13] ^= 0x40;
        Some(answer)
    }
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[0], confused);
    let _proxy = world.start().await;
    let asked = query(6, "example.org", 1);
    let answer = exchange(&world.ask(at(RESOLVERS[0])), &asked).await;
    assert_eq!(code(&answer), 2);
}

#[tokio::test]
async fn a_pod_that_is_a_name_server_keeps_working() {
    let world = world(&[]);
    let outside = world.resolver(RESOLVERS[0], echo);
    let (udp, tcp) = world.listen(&world.pod, at(POD[0]));
    let own = Resolver::start(udp, tcp, echo);
    let _proxy = world.start().await;
    let asked = query(9, "example.org", 1);
    // Its own applications ask it directly.
    let answer = exchange(&world.ask(at(POD[0])), &asked).await;
    assert_eq!(answer, echo(&asked, Over::Udp).unwrap());
    assert_eq!(own.heard.lock().unwrap().pop().unwrap(), asked, "id and all");
    // Others do, also from port 53, as some name servers ask each other.
    for port in [0, 53] {
        let from = SocketAddr::new(CLOSED.parse().unwrap(), port);
        let client = world.outside_socket(from);
        client.connect(at(POD[0])).await.unwrap();
        assert_eq!(
            exchange(&client, &asked).await,
            echo(&asked, Over::Udp).unwrap(),
            "from {port}"
        );
        assert_eq!(own.heard.lock().unwrap().pop().unwrap(), asked);
    }
    // And what it asks itself reaches the server that it chose.
    exchange(&world.ask(at(RESOLVERS[0])), &asked).await;
    assert_eq!(outside.heard.lock().unwrap().len(), 1);
    assert!(own.heard.lock().unwrap().is_empty());
}

/// The proxy's lookups go out from the ports that applications use too. What conntrack
/// remembers of the one must not be applied to the other.
#[tokio::test]
async fn ports_are_used_again_by_others() {
    let world = world(&[]);
    let resolver = world.resolver(RESOLVERS[0], echo);
    let _proxy = world.start().await;
    world.few_ports();
    let asked = query(1, "example.org", 16);
    for round in 1..=40 {
        let answer = exchange(&world.ask(at(RESOLVERS[0])), &asked).await;
        assert_eq!(answer, echo(&asked, Over::Udp).unwrap());
        assert_eq!(resolver.heard.lock().unwrap().len(), round);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
    let line = text.lines().find(|line| line.starts_with("istio_dns_requests_total{")).unwrap();
    assert!(line.ends_with(" 40"), "each was captured, and none twice: {line}");
}

#[tokio::test]
async fn hostnames_are_looked_up_at_our_own_resolvers() {
    fn records(query: &[u8], over: Over) -> Option<Vec<u8>> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        if query[12..].starts_with(b"\x04gone") {
            answer[3] |= 3;
            return Some(answer);
        }
        if over == Over::Udp && query[12..].starts_with(b"\x04long") {
            answer[2] |= 2;
            return Some(answer);
        }
        let is_v4 = query[query.len() - 3] == 1;
        answer[7] = 2;
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b't', 0xc0, 12]);
        let owner = 0xc000 | u16::try_from(answer.len() - 4).unwrap();
        answer.extend(owner.to_be_bytes());
        if is_v4 {
            answer.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        } else {
            answer.extend([0, 16, 0, 1, 0, 0, 0, 9, 0, 2, 1, b'x']);
        }
        Some(answer)
    }
    let world = world(&[CLOSED, RESOLVERS[0]]);
    let resolver = world.resolver(RESOLVERS[0], records);
    let proxy = world.start().await;
    let names = proxy.resolver();
    for host in ["db.example.org", "long.example.org."] {
        let found = soon(names.resolve(host, Family::V4)).await.unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()], "{host}");
    }
    let error = soon(names.resolve("db.example.org", Family::V6)).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoAddress { .. }), "{error}");
    let error = soon(names.resolve("gone.example.org", Family::V4)).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoAddress { .. }), "{error}");
    let error = soon(names.resolve("no..name", Family::V4)).await.unwrap_err();
    assert!(matches!(error, ResolveError::Malformed { .. }), "{error}");
    assert_eq!(resolver.heard.lock().unwrap().len(), 5, "one of them twice, one not at all");
}

pub(super) fn view_with_a_service() -> View {
    let mut view = View::default();
    let address = |text: &str| ServiceAddress { network: "".into(), net: text.parse().unwrap() };
    view.insert_service(Service {
        addresses: vec![address("10.1.0.1"), address("fd01::1")],
        ..Service::new(ServiceKey::parse("bank/till.bank.svc.cluster.local").unwrap())
    });
    view
}

#[tokio::test]
async fn services_are_answered_for_as_by_the_resolver_that_was_asked() {
    let world = World::new(ViewHandle::fixed(view_with_a_service()), |_| ());
    let resolver = world.resolver(RESOLVERS[0], echo);
    let _proxy = world.start().await;
    for address in RESOLVERS {
        for (kind, octets) in [(1, &[10, 1, 0, 1][..]), (28, &[0xfd, 1])] {
            let asked = query(3, "till.bank.shop.svc.cluster.local", kind);
            let answer = exchange(&world.ask(at(address)), &asked).await;
            assert_eq!(answer[6..8], [0, 2], "a CNAME and an address");
            let at_end = &answer[answer.len() - if kind == 1 { 4 } else { 16 }..];
            assert!(at_end.starts_with(octets), "{answer:?}");
        }
    }
    assert!(resolver.heard.lock().unwrap().is_empty(), "nobody else was asked");
}

#[tokio::test]
async fn lookups_wait_for_the_first_view() {
    let (writer, view) = channel();
    let world = World::new(view, |_| ());
    let _proxy = world.start().await;
    let socket = world.ask(at(CLOSED));
    socket.send(&query(4, "till.bank", 1)).await.unwrap();
    writer.publish(view_with_a_service());
    let answer = receive(&socket).await;
    assert_eq!((code(&answer), answer[7]), (0, 1));
}

#[tokio::test]
async fn without_a_view_there_is_a_failure_at_last() {
    let (_writer, view) = channel();
    let world = World::new(view, |_| ());
    let _proxy = world.start().await;
    let answer = exchange(&world.ask(at(CLOSED)), &query(4, "till.bank", 1)).await;
    assert_eq!(code(&answer), 2, "a wrong 'no such host' would be remembered");
}

#[tokio::test]
async fn who_asked_nobody_in_particular_gets_our_own_resolvers() {
    let world = world(&[CLOSED, RESOLVERS[1]]);
    let resolver = world.resolver(RESOLVERS[1], echo);
    let _proxy = world.start().await;
    let asked = query(4, "example.org", 1);
    for listener in ["127.0.0.1:15053", "[::1]:15053"] {
        let answer = exchange(&world.ask(listener.parse().unwrap()), &asked).await;
        assert_eq!(answer, echo(&asked, Over::Udp).unwrap());
    }
    assert_eq!(resolver.heard.lock().unwrap().len(), 2, "the next one was tried");
}

#[tokio::test]
async fn descriptors_are_only_those_of_the_families_that_the_pod_has() {
    let world = world(&[]);
    let sockets = || world.listening(15_053);
    let proxy = world.start().await;
    assert_eq!(sockets(), 4, "datagrams and connections, of both families");
    proxy.stop(crate::proxy::Drain::Immediate).await;
    assert_eq!(sockets(), 0);
    world.without_ipv6();
    let proxy = world.start().await;
    assert_eq!(sockets(), 2);
    drop(proxy);
    let off = World::new(ViewHandle::fixed(View::default()), |settings| {
        settings.dns.mode = Mode::Off;
    });
    let _proxy = off.start().await;
    assert_eq!(off.listening(15_053), 0);
}

#[tokio::test]
async fn a_zone_transfer_has_as_many_messages_as_it_needs() {
    fn zone(query: &[u8], over: Over) -> Option<Vec<u8>> {
        let parts = (0..5).map(|part| {
            let mut answer = echo(query, over).unwrap();
            answer.resize(20_000, part);
            answer
        });
        // The resolver puts a length before all of it: the first part's stays out.
        let mut all: Vec<u8> = parts.flat_map(|part| frame(&part)).collect();
        all.drain(..2);
        Some(all)
    }
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[0], zone);
    let _proxy = world.start().await;
    let mut tcp = world.dial(at(RESOLVERS[0])).await;
    for kind in [251, 252] {
        tcp.write_all(&frame(&query(1, "example.org", kind))).await.unwrap();
        for part in 0..5 {
            let message = soon(read_frame(&mut tcp)).await.unwrap();
            assert_eq!((message.len(), message.last()), (20_000, Some(&part)));
        }
    }
}

#[tokio::test]
async fn a_resolver_on_a_link_local_ipv6_address_is_asked_directly() {
    let world = world(&[]);
    let (address, resolver) = world.link_local_resolver(echo);
    let _proxy = world.start().await;
    let asked = query(1, "example.org", 1);
    let socket = world.ask(address);
    let answer = exchange(&socket, &asked).await;
    assert_eq!(answer, echo(&asked, Over::Udp).unwrap());
    assert_eq!(resolver.heard.lock().unwrap()[0], asked, "id and all");
}

/// Whoever answers another question has not answered.
fn besides(query: &[u8], over: Over) -> Option<Vec<u8>> {
    let mut answer = echo(query, over)?;
    answer[0] ^= 0xff;
    Some(answer)
}

#[tokio::test]
async fn a_resolver_that_never_answers_leaves_time_for_the_next_over_tcp_too() {
    let world = world(&[RESOLVERS[0], RESOLVERS[2]]);
    let _mute = world.resolver(RESOLVERS[0], besides);
    let _resolver = world.resolver(RESOLVERS[2], echo);
    let _proxy = world.start().await;
    let mut tcp = world.dial("127.0.0.1:15053".parse().unwrap()).await;
    let asked = query(5, "example.org", 1);
    tcp.write_all(&frame(&asked)).await.unwrap();
    let answer = soon(read_frame(&mut tcp)).await.unwrap();
    assert_eq!(answer, echo(&asked, Over::Tcp).unwrap());
}

/// The longest messages there are, to a resolver that says nothing.
#[tokio::test]
async fn lookups_that_wait_are_bounded_in_bytes() {
    let world = world(&[]);
    let _resolver = world.resolver(RESOLVERS[0], silence);
    let _proxy = world.start().await;
    let socket = world.ask(at(RESOLVERS[0]));
    let mut long = query(0, "example.org", 1);
    long.resize(60_000, 0xff);
    // Without a bound, the first that is answered is the first that is given up.
    let mut buffer = [0; 64];
    let refused = loop {
        socket.send(&long).await.unwrap();
        let answered = tokio::time::timeout(Duration::from_millis(20), socket.recv(&mut buffer));
        if answered.await.is_ok() {
            break u16::from_be_bytes([buffer[0], buffer[1]]);
        }
        let next = u16::from_be_bytes([long[0], long[1]]) + 1;
        long[..2].copy_from_slice(&next.to_be_bytes());
    };
    assert_eq!(code(&buffer), 2, "SERVFAIL");
    assert!(refused >= 60, "4 MiB wait, then they are refused at once: number {refused}");
}
