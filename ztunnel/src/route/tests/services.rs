//! Destinations that are services: which endpoint, which port, which address.

use mesh::{
    ApplicationTunnel, Health, HealthPolicy, IpFamilies, LoadBalancing, Locality, Mode, Preference,
    TunnelledProtocol, Visibility,
};

use super::*;

const VIP: &str = "10.96.0.1:80";

fn cart() -> Service {
    service("shop/cart", "10.96.0.1")
}

fn balanced(mode: Mode, preferences: &[Preference]) -> Service {
    let preferences = preferences.to_vec();
    let load_balancing = LoadBalancing { mode, preferences, health: HealthPolicy::OnlyHealthy };
    Service { load_balancing, ..cart() }
}

fn member(name: &str, ip: &str) -> Workload {
    backend(name, &[ip], "shop/cart")
}

/// Who is chosen, in thirds of all chance.
fn chosen(view: &View, samples: u64) -> Vec<String> {
    let step = u64::MAX / samples;
    let sample = |n| Sample { endpoint: n * step + step / 2, ..Sample::default() };
    let decide = |n| decide_for(&client(), VIP, view, sample(n));
    let mut names: Vec<_> = (0..samples).map(decide).collect();
    for name in &mut names {
        *name = name.split(' ').nth(1).unwrap().to_owned();
    }
    names.sort_unstable();
    names
}

#[test]
fn a_service_comes_before_a_workload_at_its_address() {
    let stranger = pod("stranger", &["10.96.0.1"], Protocol::Hbone);
    let view = view(vec![cart()], vec![member("a", "10.0.1.1"), stranger]);
    let expected = "tunnel a 10.0.1.1:8080 via 10.0.1.1:15008 of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
    assert_eq!(decide("10.0.1.1:80", &view), "tunnel a 10.0.1.1:80 via 10.0.1.1:15008");
}

#[test]
fn an_endpoint_outside_the_mesh_is_reached_in_clear_text_at_its_own_port() {
    let plain = member("a", "10.0.1.1").with(|it| it.protocol = Protocol::Plain);
    let mut view = view(vec![cart()], vec![plain]);
    let expected = "pass 10.0.1.1:8080 a PlainWorkload of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
    // But not if a version of it was rejected meanwhile, or of the service.
    let mut other = view.clone();
    reject(&mut other, "x", [10, 0, 1, 1]);
    assert!(decide(VIP, &other).starts_with("refuse rejected_destination"));
    let address =
        mesh::proto::workload::NetworkAddress { address: vec![10, 96, 0, 1], ..Default::default() };
    let message = mesh::proto::workload::Service { addresses: vec![address], ..Default::default() };
    view.reject_service(&key("shop/cart"), &message);
    assert!(decide(VIP, &view).starts_with("refuse rejected_service"));
    // A tunnel is safe: its peer has to prove who it is.
    view.insert_workload(member("a", "10.0.1.1"));
    assert!(decide(VIP, &view).starts_with("tunnel a"));
}

#[test]
fn an_endpoint_that_is_this_pod_cannot_be_used_to_dial_the_proxy() {
    let mut own = member("client", "10.0.0.1").with(|it| it.protocol = Protocol::Plain);
    own = mapping(own, &[(80, 15001)]);
    let view = view(vec![cart()], vec![own.clone()]);
    let decision = decide_for(&own, VIP, &view, Sample::default());
    assert!(decision.starts_with("refuse proxy_port"), "{decision}");
}

#[test]
fn what_was_rejected_is_not_unknown() {
    let address = |bytes: [u8; 4], length| mesh::proto::workload::NetworkAddress {
        network: String::new(),
        address: bytes.to_vec(),
        length,
    };
    let addresses = vec![address([10, 96, 0, 1], None), address([10, 97, 0, 0], Some(16))];
    let message = mesh::proto::workload::Service { addresses, ..Default::default() };
    let mut view = View::default();
    view.reject_service(&key("shop/cart"), &message);
    for dst in [VIP, "10.97.3.3:80"] {
        let decision = decide(dst, &view);
        assert!(decision.starts_with("refuse rejected_service"), "{decision}");
    }
    assert_eq!(decide("10.98.0.1:80", &view), "pass 10.98.0.1:80 - UnknownDestination");
}

#[test]
fn a_service_of_other_namespaces_only_is_unknown() {
    let hidden = Service { visibility: Visibility::Namespace, ..service("bank/x", "10.96.0.1") };
    let view = view(vec![hidden], Vec::new());
    assert_eq!(decide(VIP, &view), "pass 10.96.0.1:80 - UnknownDestination");
}

#[test]
fn a_known_service_is_never_passed_through() {
    let sick = member("a", "10.0.1.1").with(|it| it.health = Health::Unhealthy);
    let nobody = "refuse no_endpoint: service shop/cart has no healthy workload that can be \
                  reached from here";
    let no_port = "refuse unknown_service_port: service shop/cart has no port 81";
    let homeless = member("a", "10.0.1.1").with(|it| it.addresses = mesh::Addresses::default());
    let idle = member("a", "10.0.1.1").with(|it| it.capacity = 0);
    let far = member("a", "10.0.1.1").with(|it| it.network = "far".into());
    for workloads in [vec![], vec![sick], vec![homeless], vec![idle], vec![far]] {
        let view = view(vec![cart()], workloads);
        assert_eq!(decide(VIP, &view), nobody);
        assert_eq!(decide("10.96.0.1:81", &view), no_port);
    }
}

#[test]
fn unhealthy_endpoints_count_where_the_service_says_so() {
    let sick = member("sick", "10.0.1.1").with(|it| it.health = Health::Unhealthy);
    let mut all = cart();
    all.load_balancing.health = HealthPolicy::AllowAll;
    let both = vec![sick, member("well", "10.0.1.2")];
    assert_eq!(chosen(&view(vec![cart()], both.clone()), 4), ["well"; 4]);
    assert_eq!(chosen(&view(vec![all], both), 4), ["sick", "sick", "well", "well"]);
}

#[test]
fn target_ports() {
    let nowhere =
        Service { ports: [ServicePort { service_port: 80, target_port: 0 }].into(), ..cart() };
    let takes_all = ApplicationTunnel { protocol: TunnelledProtocol::Proxy, port: Some(15088) };
    let tunnelled = member("a", "10.0.1.1").with(|it| it.application_tunnel = Some(takes_all));
    let a = || member("a", "10.0.1.1");
    let cases = [
        // The workload's own, else the service's.
        (cart(), mapping(a(), &[(80, 9090)]), "tunnel a 10.0.1.1:9090 via"),
        (cart(), mapping(a(), &[(81, 9090)]), "tunnel a 10.0.1.1:8080 via"),
        (cart(), mapping(a(), &[(80, 0)]), "tunnel a 10.0.1.1:8080 via"),
        (nowhere.clone(), mapping(a(), &[(80, 9090)]), "tunnel a 10.0.1.1:9090 via"),
        (nowhere.clone(), a(), "refuse no_endpoint"),
        // Only waypoints get along without.
        (nowhere, tunnelled, "refuse no_endpoint"),
    ];
    for (service, workload, expected) in cases {
        let decision = decide(VIP, &view(vec![service], vec![workload]));
        assert!(decision.starts_with(expected), "{decision}, not {expected}");
    }
}

#[test]
fn addresses_and_families() {
    let dual = || backend("a", &["10.0.1.1", "fd00:1::1"], "shop/cart");
    let six = || backend("a", &["fd00:1::1"], "shop/cart");
    let named = || backend("a", &[], "shop/cart").with(|it| it.hostname = "db.example.com".into());
    let of = |ip_families| Service { ip_families, ..cart() };
    let cases = [
        // The family of the request, if there is a choice.
        (of(IpFamilies::Automatic), dual(), "tunnel a 10.0.1.1:8080 via 10.0.1.1:15008 "),
        (of(IpFamilies::Dual), six(), "tunnel a [fd00:1::1]:8080 via [fd00:1::1]:15008 "),
        (of(IpFamilies::V6), dual(), "tunnel a [fd00:1::1]:8080 via [fd00:1::1]:15008 "),
        (of(IpFamilies::V4), six(), "refuse no_endpoint"),
        (
            of(IpFamilies::V4),
            named(),
            "tunnel a db.example.com:8080 via db.example.com:15008 of shop/cart",
        ),
        (
            of(IpFamilies::V4),
            named().with(|it| it.protocol = Protocol::Plain),
            "pass db.example.com:8080 a PlainWorkload of shop/cart",
        ),
    ];
    for (service, workload, expected) in cases {
        let decision = decide(VIP, &view(vec![service], vec![workload]));
        assert!(decision.starts_with(expected), "{decision}, not {expected}");
    }
    // A range of a service around its own workloads: the one that was asked for.
    let around = Service { ip_families: IpFamilies::V6, ..service("shop/cart", "10.0.1.0/24") };
    let view = view(vec![around], vec![dual()]);
    assert!(decide("10.0.1.1:80", &view).starts_with("tunnel a 10.0.1.1:8080"));
}

#[test]
fn a_resolved_name_takes_the_place_of_itself_in_tunnel_and_request() {
    let named = backend("a", &[], "shop/cart").with(|it| it.hostname = "db.example.com".into());
    let (source, view) = (client(), view(vec![cart()], vec![named]));
    let (client, dst) = (source.addresses[0], OrigDst(VIP.parse().unwrap()));
    let sample = Sample::default();
    let request = Request { source: &source, client, dst, view: &view, sample };
    let Route::Tunnel(tunnel) = route(&request) else { panic!("a tunnel") };
    assert_eq!(tunnel.place().unresolved().map(|name| &**name), Some("db.example.com"));
    let tunnel = tunnel.resolved("192.0.2.7".parse().unwrap());
    assert_eq!(tunnel.place().to_string(), "192.0.2.7:15008");
    assert_eq!(tunnel.authority.to_string(), "192.0.2.7:8080");
    assert_eq!(tunnel.place().unresolved(), None);
}

#[test]
fn who_may_answer_is_the_workload_and_whom_the_service_names() {
    let other = Identity::new("", "shop", "legacy").unwrap();
    let own = Identity::new("", "shop", "a").unwrap();
    let named = Service { subject_alt_names: vec![other, own], ..cart() };
    let view = view(vec![named], vec![member("a", "10.0.1.1")]);
    let expected = "tunnel a+legacy 10.0.1.1:8080 via 10.0.1.1:15008 of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
}

#[test]
fn passthrough_services_keep_their_address() {
    let through = balanced(Mode::Passthrough, &[]);
    let view = view(vec![through], vec![member("a", "10.0.1.1")]);
    let expected = "pass 10.96.0.1:81 - PassthroughService of shop/cart";
    assert_eq!(decide("10.96.0.1:81", &view), expected);
}

#[test]
fn a_passthrough_range_over_pods_does_not_bring_them_into_the_clear() {
    let net = "10.0.0.0/8".parse().unwrap();
    let addresses = vec![ServiceAddress { network: "".into(), net }];
    let range = Service { addresses, ..balanced(Mode::Passthrough, &[]) };
    let view = view(vec![range], vec![member("a", "10.0.1.1")]);
    assert_eq!(decide("10.0.1.1:9000", &view), "tunnel a 10.0.1.1:9000 via 10.0.1.1:15008");
    let outside = "pass 10.9.9.9:9000 - PassthroughService of shop/cart";
    assert_eq!(decide("10.9.9.9:9000", &view), outside);
}

fn placed(name: &str, ip: &str, node: &str, zone: &str, region: &str) -> Workload {
    let locality = Locality { region: region.into(), zone: zone.into(), subzone: "".into() };
    member(name, ip).with(|it| {
        it.node = node.into();
        it.locality = Arc::new(locality);
    })
}

#[test]
fn preferences() {
    use Preference::{Network, Node, Region, Zone};
    let here = || placed("client", "10.0.0.1", "n1", "z1", "r1");
    let workloads = vec![
        placed("node", "10.0.1.1", "n1", "z1", "r1"),
        placed("zone", "10.0.1.2", "n2", "z1", "r1"),
        placed("region", "10.0.1.3", "n3", "z2", "r1"),
        // The name of the zone is the same, but not the region before it.
        placed("abroad", "10.0.1.4", "n4", "z1", "r2"),
    ];
    let without = |names: &[&str]| {
        let left = workloads.iter().filter(|it| !names.contains(&it.name()));
        left.cloned().collect::<Vec<_>>()
    };
    let all = || workloads.clone();
    let topology: &[_] = &[Region, Zone];
    let cases: [(_, &[_], _, &[_]); 10] = [
        (Mode::Unspecified, topology, all(), &["abroad", "node", "region", "zone"]),
        (Mode::Failover, topology, all(), &["node", "zone"]),
        (Mode::Failover, topology, without(&["node", "zone"]), &["region"]),
        (Mode::Failover, topology, without(&["node", "zone", "region"]), &["abroad"]),
        (Mode::Failover, &[Node], without(&["node"]), &["abroad", "region", "zone"]),
        (Mode::Strict, &[Node], all(), &["node"]),
        (Mode::Strict, &[Node], without(&["node"]), &["no_endpoint:"]),
        (Mode::Strict, topology, without(&["node", "zone"]), &["no_endpoint:"]),
        (Mode::Strict, &[], all(), &["abroad", "node", "region", "zone"]),
        (Mode::Failover, &[Network, Zone], all(), &["abroad", "node", "zone"]),
    ];
    for (mode, preferences, workloads, expected) in cases {
        let view = view(vec![balanced(mode, preferences)], workloads);
        let mut found: Vec<_> = (0..60)
            .map(|n| Sample { endpoint: n * (u64::MAX / 60), ..Sample::default() })
            .map(|sample| decide_for(&here(), VIP, &view, sample))
            .map(|line| line.split(' ').nth(1).unwrap().to_owned())
            .collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expected, "{mode:?} {preferences:?}");
    }
}

#[test]
fn capacity_is_a_share() {
    let weighted = |name, ip, capacity| member(name, ip).with(|it| it.capacity = capacity);
    let workloads = vec![
        weighted("one", "10.0.1.1", 1),
        weighted("two", "10.0.1.2", 2),
        weighted("none", "10.0.1.3", 0),
    ];
    let found = chosen(&view(vec![cart()], workloads), 300);
    let count = |name: &str| found.iter().filter(|it| *it == name).count();
    assert_eq!([count("one"), count("two"), count("none")], [100, 200, 0]);
}

#[test]
fn the_largest_sample_chooses_somebody() {
    let heavy = member("a", "10.0.1.1").with(|it| it.capacity = u32::MAX);
    let view = view(vec![cart()], vec![heavy, member("b", "10.0.1.2")]);
    let sample = Sample { endpoint: u64::MAX, ..Sample::default() };
    assert!(decide_for(&client(), VIP, &view, sample).starts_with("tunnel"));
}

/// How often each `owner` is chosen of so many times.
fn shares(view: &View, times: u64) -> std::collections::BTreeMap<String, usize> {
    let mut shares = std::collections::BTreeMap::new();
    for number in 0..times {
        let endpoint = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let chosen = decide_for(&client(), VIP, view, Sample { endpoint, ..Sample::default() });
        let name = chosen.split(' ').nth(1).unwrap();
        *shares.entry(name.split('-').next().unwrap().to_owned()).or_default() += 1;
    }
    shares
}

/// So many that not all of them are looked at.
fn many(count: u8, owner: &str, change: impl Fn(&mut Workload)) -> Vec<Workload> {
    let member = |number| {
        let ip = format!("10.{}.0.{number}", owner.len());
        member(&format!("{owner}-{number}"), &ip).with(&change)
    };
    (0..count).map(member).collect()
}

#[test]
fn in_a_crowd_everybody_has_the_share_of_its_capacity() {
    let light = many(200, "a", |_| ());
    let heavy = many(100, "bb", |it| it.capacity = 4);
    let idle = many(100, "ccc", |it| it.capacity = 0);
    let sick = many(100, "dddd", |it| it.health = Health::Unhealthy);
    let view = view(vec![cart()], [light, heavy, idle, sick].concat());
    let shares = shares(&view, 20_000);
    // Two of six thousands.
    assert!(shares["a"].abs_diff(20_000 / 3) < 400, "{shares:?}");
    assert_eq!(shares["a"] + shares["bb"], 20_000, "{shares:?}");
}

#[test]
fn in_a_crowd_too_only_the_best_are_chosen() {
    let zone = |zone: &str| Locality { zone: zone.into(), ..Locality::default() };
    let there = || many(200, "a", |it| it.locality = Arc::new(zone("z2")));
    let elsewhere = many(150, "dddd", |it| it.node = "other".into());
    let here = |count| many(count, "bb", |it| it.node = client().node);
    let sick = many(100, "ccc", |it| it.health = Health::Unhealthy);
    let away =
        || there().into_iter().map(|it| it.with(|it| it.node = "other".into())).collect::<Vec<_>>();
    let zones = balanced(Mode::Failover, &[Preference::Zone]);
    let nodes = balanced(Mode::Failover, &[Preference::Node]);
    let only = |owner: &str| [(owner.to_owned(), 500)].into();
    let cases = [
        ("its zone", &zones, [there(), here(1)].concat(), "bb"),
        ("nobody of its zone", &zones, there(), "a"),
        ("all of its zone are sick", &zones, [there(), sick.clone()].concat(), "a"),
        ("its node", &nodes, [elsewhere.clone(), here(2)].concat(), "bb"),
        ("nobody of its node", &nodes, elsewhere.clone(), "dddd"),
        ("all of its node are sick", &nodes, [away(), sick].concat(), "a"),
    ];
    for (name, service, members, expected) in cases {
        let view = view(vec![service.clone()], members);
        assert_eq!(shares(&view, 500), only(expected), "{name}");
    }
    let strict = balanced(Mode::Strict, &[Preference::Node]);
    let view = view(vec![strict], elsewhere);
    assert!(decide(VIP, &view).starts_with("refuse no_endpoint"));
}
