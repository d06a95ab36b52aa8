//! Tables of names, and bytes of all kinds.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use mesh::{
    Health, Identity, IpFamilies, Membership, Service, ServiceAddress, ServiceKey, View,
    Visibility, Workload,
};
use proptest::prelude::*;

use super::answer::{Facts, Outcome, Transport, answer};
use super::host::{aliases, host, wildcards};
use super::upstreams::Upstreams;
use super::{wire, wire::answers};
use crate::proxy::Ipv6;

fn service(key: &str, addresses: &[&str]) -> Service {
    let address = |text: &&str| {
        let (network, ip) = text.split_once('/').unwrap();
        ServiceAddress { network: network.into(), net: ip.parse().unwrap() }
    };
    let addresses = addresses.iter().map(address).collect();
    Service { addresses, ..Service::new(ServiceKey::parse(key).unwrap()) }
}

fn endpoint(uid: &str, key: &str, addresses: &[&str]) -> Workload {
    let identity = Identity::new("", "shop", "default").unwrap();
    let service = ServiceKey::parse(key).unwrap();
    Workload::new(uid, "shop", uid, identity).with(|it| {
        it.addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        it.services = [Membership { service, ports: Box::default() }].into();
    })
}

fn view() -> View {
    let mut view = View::default();
    for service in [
        service("shop/cart.shop.svc.cluster.local", &["/10.1.0.1", "/fd01::1"]),
        service("bank/till.bank.svc.cluster.local", &["/10.1.0.2"]),
        service("bank/api.example.org", &["/10.2.0.1"]),
        service("bank/*.wild.example.org", &["/10.2.0.2"]),
        service("bank/far.bank.svc.cluster.local", &["other/10.1.0.9"]),
        service(
            "bank/many.example.org",
            &["/10.3.0.1", "/10.3.0.2", "/10.3.0.3", "other/10.3.0.4"],
        ),
        service("bank/range.example.org", &["/10.4.0.0/24"]),
        service("bank/external.example.org", &[]),
        service("shop/both.example.org", &["/10.5.0.1"]),
        service("bank/both.example.org", &["/10.5.0.2"]),
        service("aaaa/elsewhere.example.org", &["/10.6.0.1"]),
        Service { canonical: true, ..service("bank/elsewhere.example.org", &["/10.6.0.2"]) },
        Service {
            visibility: Visibility::Namespace,
            ..service("bank/private.example.org", &["/10.7.0.1"])
        },
        service("shop/db.shop.svc.cluster.local", &[]),
        Service { ip_families: IpFamilies::V4, ..service("shop/db4.shop.svc.cluster.local", &[]) },
        service("shop/none.shop.svc.cluster.local", &[]),
    ] {
        view.insert_service(service);
    }
    let db = "shop/db.shop.svc.cluster.local";
    let sick = endpoint("c", db, &["10.9.0.3", "fd09::3"]).with(|it| it.health = Health::Unhealthy);
    let far = endpoint("f", db, &["10.9.0.4"]).with(|it| it.network = "other".into());
    for workload in [
        sick,
        far,
        endpoint("a", db, &["10.9.0.1", "fd09::1"]),
        endpoint("b", db, &["10.9.0.2"]),
        endpoint("d", "shop/db4.shop.svc.cluster.local", &["10.9.1.1", "fd09:1::1"]),
    ] {
        view.insert_workload(workload);
    }
    view
}

fn facts(view: &View) -> Facts<'_> {
    static NETWORK: std::sync::LazyLock<mesh::Network> = std::sync::LazyLock::new(|| "".into());
    Facts {
        view: Some(view),
        namespace: "shop",
        network: &NETWORK,
        domain: "cluster.local",
        preferred_namespace: None,
        ipv6: Ipv6::Enabled,
        transport: Transport::Udp,
        random: 7,
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reply(facts: &Facts<'_>, query: &Message) -> Option<Message> {
    match answer(&query.to_vec().unwrap(), facts) {
        Outcome::Answer(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Outcome::Forward => None,
        other => panic!("{query}: {other:?}"),
    }
}

/// The answer in words: `target: addresses`, or where there is no CNAME the addresses only.
fn told(facts: &Facts<'_>, name: &str, kind: RecordType) -> Option<String> {
    let reply = reply(facts, &query(name, kind))?;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    let mut owner = Name::from_ascii(name).unwrap();
    let mut text = String::new();
    for record in &reply.answers {
        assert!(record.name.eq_ignore_root_case(&owner), "{reply}");
        assert_eq!(record.ttl, 30);
        match &record.data {
            RData::CNAME(target) => {
                owner = target.0.clone();
                text = format!("{owner}");
            }
            data => text = format!("{text} {}", data.ip_addr().unwrap()),
        }
    }
    Some(text.trim().to_owned())
}

#[test]
fn names_that_a_client_may_use() {
    let view = view();
    let found = |name| told(&facts(&view), name, RecordType::A);
    let cart = "10.1.0.1";
    for (name, expected) in [
        ("cart.shop.svc.cluster.local.", cart),
        ("CaRt.ShOp.svc.Cluster.LOCAL.", cart),
        ("cart.", cart),
        ("cart.shop.", cart),
        ("cart.shop.svc.", cart),
        ("till.bank.svc.cluster.local.", "10.1.0.2"),
        ("till.bank.", "10.1.0.2"),
        ("api.example.org.", "10.2.0.1"),
        // A wildcard covers any number of labels, but not none.
        ("a.wild.example.org.", "10.2.0.2"),
        ("a.b.wild.example.org.", "10.2.0.2"),
        // What a search list makes of short and of full names.
        ("till.bank.svc.shop.svc.cluster.local.", "till.bank.svc.cluster.local. 10.1.0.2"),
        ("till.bank.shop.svc.cluster.local.", "till.bank.svc.cluster.local. 10.1.0.2"),
        ("api.example.org.shop.svc.cluster.local.", "api.example.org. 10.2.0.1"),
        ("api.example.org.svc.cluster.local.", "api.example.org. 10.2.0.1"),
        ("api.example.org.cluster.local.", "api.example.org. 10.2.0.1"),
        ("a.wild.example.org.shop.svc.cluster.local.", "a.wild.example.org. 10.2.0.2"),
        // Known, without an address for this client: no answer, but no "no such host".
        ("far.bank.svc.cluster.local.", ""),
        ("none.shop.svc.cluster.local.", ""),
        // One hostname in several namespaces.
        ("both.example.org.", "10.5.0.1"),
        ("elsewhere.example.org.", "10.6.0.2"),
    ] {
        assert_eq!(found(name).as_deref(), Some(expected), "{name}");
    }
    for forwarded in [
        ".",
        "till.",
        "wild.example.org.",
        "range.example.org.",
        "external.example.org.",
        "private.example.org.",
        "cart.bank.svc.cluster.local.",
        "cart.shop.svc.cluster.local.example.org.",
        "api.example.org.bank.svc.cluster.local.",
        "svc.cluster.local.",
        "cluster.local.",
        "www.example.com.shop.svc.cluster.local.",
    ] {
        assert_eq!(found(forwarded), None, "{forwarded}");
    }
}

#[test]
fn what_a_client_sees_depends_on_who_it_is() {
    let view = view();
    let mine = Facts { namespace: "bank", ..facts(&view) };
    let found = |facts: &Facts<'_>, name| told(facts, name, RecordType::A);
    assert_eq!(found(&mine, "private.example.org.").unwrap(), "10.7.0.1");
    assert_eq!(found(&mine, "both.example.org.").unwrap(), "10.5.0.2");
    assert_eq!(found(&mine, "till.").unwrap(), "10.1.0.2");
    let preferring = Facts { preferred_namespace: Some("aaaa"), ..facts(&view) };
    assert_eq!(found(&preferring, "elsewhere.example.org.").unwrap(), "10.6.0.1");
    let other = "other".into();
    let far = Facts { network: &other, ..facts(&view) };
    assert_eq!(found(&far, "far.bank.svc.cluster.local.").unwrap(), "10.1.0.9");
    assert_eq!(found(&far, "many.example.org.").unwrap(), "10.3.0.4");
    let renamed = Facts { domain: "corp.example", ..facts(&view) };
    assert_eq!(found(&renamed, "cart."), None);
}

#[test]
fn families() {
    let view = view();
    let found = |name, kind| told(&facts(&view), name, kind);
    assert_eq!(found("cart.shop.", RecordType::AAAA).unwrap(), "fd01::1");
    assert_eq!(found("till.bank.", RecordType::AAAA).unwrap(), "", "known, but IPv4 only");
    let without = Facts { ipv6: Ipv6::Disabled, ..facts(&view) };
    assert_eq!(told(&without, "cart.shop.", RecordType::AAAA).unwrap(), "");
    assert_eq!(told(&without, "cart.shop.", RecordType::A).unwrap(), "10.1.0.1");
    // The workloads have both, the service only one.
    assert_eq!(found("db4.shop.", RecordType::A).unwrap(), "10.9.1.1");
    assert_eq!(found("db4.shop.", RecordType::AAAA).unwrap(), "");
    for kind in [RecordType::SRV, RecordType::ANY, RecordType::TXT, RecordType::HTTPS] {
        assert_eq!(found("cart.shop.", kind), None, "{kind} is not ours");
    }
}

#[test]
fn headless_services_are_their_endpoints_the_healthy_first() {
    let view = view();
    let mut firsts = std::collections::BTreeSet::new();
    for random in 0..64 {
        let facts = Facts { random, ..facts(&view) };
        let found = told(&facts, "db.shop.", RecordType::A).unwrap();
        let found: Vec<&str> = found.split(' ').collect();
        assert_eq!(found.len(), 3, "the far one cannot be reached: {found:?}");
        assert_eq!(found[2], "10.9.0.3", "the sick one is last");
        firsts.insert(found[0].to_owned());
        assert_eq!(told(&facts, "db.shop.", RecordType::AAAA).unwrap(), "fd09::1 fd09::3");
    }
    assert_eq!(firsts.len(), 2, "no healthy one is always first");
}

#[test]
fn the_number_decides_the_order() {
    let view = view();
    let order =
        |random| told(&Facts { random, ..facts(&view) }, "many.example.org.", RecordType::A);
    assert_eq!(order(1), order(1));
    let orders: std::collections::BTreeSet<_> = (0..200).map(order).collect();
    assert_eq!(orders.len(), 6, "all orders of three addresses: {orders:?}");
}

#[test]
fn an_answer_repeats_the_question_as_it_was_written() {
    let view = view();
    let mut query = query("cArT.sHoP.svc.cluster.local.", RecordType::A);
    query.metadata.checking_disabled = true;
    let bytes = query.to_vec().unwrap();
    let Outcome::Answer(reply) = answer(&bytes, &facts(&view)) else { panic!() };
    assert_eq!(reply[12..bytes.len()], bytes[12..]);
    assert!(answers(&reply, &bytes));
    let reply = Message::from_vec(&reply).unwrap();
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    assert!(reply.metadata.recursion_desired && reply.metadata.checking_disabled);
    assert_eq!(reply.answers[0].name.to_ascii(), "cArT.sHoP.svc.cluster.local.");
    assert!(reply.edns.is_none(), "none was offered");
}

fn big() -> View {
    let mut view = View::default();
    let addresses: Vec<_> = (0..6000).map(|n| format!("/10.{}.{}.1", n / 250, n % 250)).collect();
    let addresses: Vec<&str> = addresses.iter().map(|text| &**text).collect();
    view.insert_service(service("shop/big.example.org", &addresses));
    view
}

#[test]
fn what_does_not_fit_is_cut_off_and_said_to_be() {
    let view = big();
    let facts = facts(&view);
    let mut query = query("big.example.org.", RecordType::A);
    let length = |query: &Message, transport| {
        let facts = Facts { transport, ..facts };
        let Outcome::Answer(bytes) = answer(&query.to_vec().unwrap(), &facts) else { panic!() };
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.edns.is_some(), query.edns.is_some());
        (bytes.len(), reply.metadata.truncation)
    };
    let is_just_below = |length: usize, limit| length <= limit && length + 16 > limit;
    let (plain, cut) = length(&query, Transport::Udp);
    assert!(is_just_below(plain, 512) && cut, "{plain}");
    for (offered, limit) in [(100, 512), (1232, 1232), (4096, 4096), (65_535, 65_507)] {
        let mut edns = Edns::new();
        edns.set_max_payload(offered).set_version(0);
        query.set_edns(edns);
        let (length, cut) = length(&query, Transport::Udp);
        assert!(is_just_below(length, limit) && cut, "{offered}: {length}");
    }
    let (length, cut) = length(&query, Transport::Tcp);
    assert!(is_just_below(length, 65_535) && !cut, "{length}");
}

#[test]
fn edns_is_answered_with_edns() {
    let view = view();
    let mut query = query("cart.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    query.set_edns(edns.clone());
    let reply = reply(&facts(&view), &query).unwrap();
    let ours = reply.edns.unwrap();
    assert!(ours.flags().dnssec_ok);
    assert_eq!((ours.version(), ours.max_payload()), (0, 4096));
    edns.set_version(1);
    query.set_edns(edns);
    assert!(super::tests::reply(&facts(&view), &query).is_none(), "of another version");
}

#[test]
fn without_a_view_only_what_needs_one_waits() {
    let none = View::default();
    let facts = Facts { view: None, ..facts(&none) };
    let decide = |query: Message| answer(&query.to_vec().unwrap(), &facts);
    assert_eq!(decide(query("cart.", RecordType::A)), Outcome::AwaitView);
    assert_eq!(decide(query("cart.", RecordType::SRV)), Outcome::Forward);
    let mut update = query("cart.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(decide(update), Outcome::Forward);
    let response = Message::new(1, MessageType::Response, OpCode::Query);
    assert_eq!(decide(response), Outcome::Ignore);
}

#[test]
fn names_on_the_wire_as_text() {
    for (name, expected) in [
        (&b"\x01A\x02bC\0"[..], Some("a.bc")),
        (b"\0", None),
        (b"", None),
        (b"\x03a.b\0", None),
        (b"\x02\xc3\xa4\0", None),
        (b"\x01 \0", None),
        (b"\x05ab", None),
    ] {
        assert_eq!(host(name).as_deref(), expected, "{name:?}");
    }
    assert!(wildcards("a.b.c").eq(["*.b.c", "*.c"]));
    assert_eq!(wildcards("a").count(), 0);
    assert_eq!(super::host::encode(&"a".repeat(64)), None);
    assert_eq!(super::host::encode(&"ab.".repeat(90)), None);
}

#[test]
fn readings_of_a_name() {
    let hosts = |name| {
        let all = aliases(name, "shop", "cluster.local");
        all.into_iter().map(|alias| alias.host).collect::<Vec<_>>()
    };
    assert_eq!(hosts("cart"), ["cart", "cart.shop.svc.cluster.local"]);
    assert_eq!(
        hosts("cart.shop"),
        ["cart.shop", "cart.shop.svc.cluster.local", "cart.shop.shop.svc.cluster.local"],
    );
    assert_eq!(hosts("www.example.com"), ["www.example.com", "www.example.com.svc.cluster.local"]);
    assert_eq!(hosts("shop.svc.cluster.local").len(), 6, "{:?}", hosts("shop.svc.cluster.local"));
}

#[test]
fn resolvers_of_a_resolv_conf() {
    let text = "# a comment\nsearch a.b c\nnameserver 10.0.0.10 # here\n nameserver\tfd00::a\n\
        nameserver example.org\nnameserver fe80::1%eth0\nnameserver fe80::1%3\noptions ndots:5\n\
        nameserver 9.9.9.9\n";
    let expected = ["10.0.0.10:53", "[fd00::a]:53", "[fe80::1%3]:53"].map(|it| it.parse().unwrap());
    assert_eq!(Upstreams::parse(text).all(), expected);
    assert!(Upstreams::parse("").all().is_empty());
}

#[test]
fn an_answer_belongs_to_one_question() {
    let asked = query("example.org.", RecordType::A).to_vec().unwrap();
    let good = |change: fn(&mut Vec<u8>)| {
        let mut response = asked.clone();
        response[2] |= 0x80;
        change(&mut response);
        answers(&response, &asked)
    };
    assert!(good(|_| ()));
    assert!(good(|it| it[13] ^= 0x20), "a letter in the other case");
    assert!(
        good(|it| {
            it.truncate(12);
            it[5] = 0;
            it[3] = 1;
        }),
        "a refusal without question"
    );
    for (what, changed) in [
        ("id", good(|it| it[0] ^= 1)),
        ("a query", good(|it| it[2] &= 0x7f)),
        ("opcode", good(|it| it[2] ^= 8)),
        ("name", good(|it| it[13] ^= 1)),
        (
            "type",
            good(|it| {
                let at = it.len() - 3;
                it[at] ^= 1;
            }),
        ),
        (
            "class",
            good(|it| {
                let at = it.len() - 1;
                it[at] ^= 2;
            }),
        ),
        ("cut off", good(|it| it.truncate(20))),
        (
            "no question and no refusal",
            good(|it| {
                it.truncate(12);
                it[5] = 0;
            }),
        ),
    ] {
        assert!(!changed, "another {what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0..4u8) {
        let view = view();
        let _ = answer(&bytes, &facts(&view));
        // The same as a well-begun question about a known host.
        let mut begun = query("cart.shop.", RecordType::A).to_vec().unwrap();
        begun[11] = kind;
        begun.extend(&bytes);
        let outcome = answer(&begun, &facts(&view));
        prop_assert!(!matches!(outcome, Outcome::Ignore | Outcome::AwaitView));
        let _ = wire::failure(&bytes, 2);
        let _ = answers(&bytes, &begun);
        let _ = answers(&begun, &bytes);
    }

    #[test]
    fn one_changed_byte_is_safe(at in 0..80usize, value in any::<u8>()) {
        let view = view();
        let mut query = query("a.wild.example.org.shop.svc.cluster.local.", RecordType::A);
        query.set_edns(Edns::new());
        let mut bytes = query.to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Outcome::Answer(reply) = answer(&bytes, &facts(&view)) {
            prop_assert!(answers(&reply, &bytes));
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
    }
}
