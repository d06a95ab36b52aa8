//! Waypoints, and other networks.

use mesh::{ApplicationTunnel, Health, TunnelledProtocol};

use super::*;

const VIP: &str = "10.96.0.1:80";

fn cart() -> Service {
    service("shop/cart", "10.96.0.1")
}

/// The service of a waypoint, with its one workload.
fn waypoint(name: &str, vip: &str, ip: &str) -> (Service, Workload) {
    let hostname = format!("shop/{name}");
    let ports = [ServicePort { service_port: 15008, target_port: 15008 }].into();
    (Service { ports, ..service(&hostname, vip) }, backend(name, &[ip], &hostname))
}

fn behind(waypoint: Gateway) -> Service {
    Service { waypoint: Some(waypoint), ..cart() }
}

fn member() -> Workload {
    backend("a", &["10.0.1.1"], "shop/cart")
}

#[test]
fn a_waypoint_is_asked_for_what_was_dialled_however_it_is_named() {
    let expected = "tunnel way 10.96.0.1:80 via 10.0.2.1:15008 of shop/cart";
    let moved = "tunnel way 10.96.0.1:80 via 10.0.2.1:15009 of shop/cart";
    let cases = [
        (named("shop/way"), expected),
        (at("", "10.96.0.2", 15008), expected),
        (at("", "10.0.2.1", 15008), expected),
        (at("", "10.0.2.1", 15009), moved),
    ];
    for (gateway, expected) in cases {
        let (service, workload) = waypoint("way", "10.96.0.2", "10.0.2.1");
        let view = view(vec![behind(gateway.clone()), service], vec![workload, member()]);
        assert_eq!(decide(VIP, &view), expected, "{gateway}");
        // It knows better than we do which ports there are.
        let other = expected.replace(":80 ", ":81 ");
        assert_eq!(decide("10.96.0.1:81", &view), other, "{gateway}");
    }
}

#[test]
fn nothing_goes_past_a_waypoint() {
    let (way, pod) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let sick = pod.clone().with(|it| it.health = Health::Unhealthy);
    let unknown = "refuse unknown_waypoint: waypoint shop/way:15008 is not known; does the \
                   control plane still name a deleted one?";
    let nobody = "refuse no_waypoint: waypoint shop/way:15008 has no healthy workload that can \
                  be reached from here";
    let strange_port = Gateway { hbone_port: 15009, ..named("shop/way") };
    let cases = [
        (vec![behind(named("shop/way"))], vec![member()], unknown),
        (vec![behind(named("shop/way")), way.clone()], vec![member()], nobody),
        (vec![behind(named("shop/way")), way.clone()], vec![member(), sick], nobody),
        (
            vec![behind(strange_port), way],
            vec![member(), pod],
            "refuse no_waypoint: waypoint shop/way:15009 has no healthy workload that can be \
             reached from here",
        ),
        (
            vec![behind(at("", "10.0.2.9", 15008))],
            vec![member()],
            "refuse unknown_waypoint: waypoint /10.0.2.9 port 15008 is not known; does the \
             control plane still name a deleted one?",
        ),
    ];
    for (services, workloads, expected) in cases {
        assert_eq!(decide(VIP, &view(services, workloads)), expected);
    }
}

#[test]
fn a_waypoint_that_takes_everything_in_one_place_needs_no_port_in_its_service() {
    let (service, workload) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let service = Service { ports: Box::default(), ..service };
    let tunnel = ApplicationTunnel { protocol: TunnelledProtocol::Proxy, port: Some(15088) };
    let workload = workload.with(|it| it.application_tunnel = Some(tunnel));
    let view = view(vec![behind(named("shop/way")), service], vec![workload, member()]);
    let expected = "tunnel way 10.96.0.1:80 via 10.0.2.1:15008 of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
}

#[test]
fn who_may_answer_for_a_waypoint_is_its_workload_and_whom_its_service_names() {
    let (service, workload) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let names = vec![Identity::new("", "shop", "gate").unwrap()];
    let service = Service { subject_alt_names: names, ..service };
    let hidden = vec![Identity::new("", "shop", "cart").unwrap()];
    let cart = Service { subject_alt_names: hidden, ..behind(named("shop/way")) };
    let view = view(vec![cart, service], vec![workload, member()]);
    let expected = "tunnel way+gate 10.96.0.1:80 via 10.0.2.1:15008 of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
}

#[test]
fn weighted_waypoints_have_their_shares() {
    let (one, one_pod) = waypoint("one", "10.96.0.2", "10.0.2.1");
    let (two, two_pod) = waypoint("two", "10.96.0.3", "10.0.2.2");
    let weights = |first, second| Service {
        weighted_waypoints: vec![(named("shop/one"), first), (named("shop/two"), second)],
        ..behind(named("shop/two"))
    };
    let shares = |service: Service, source: &Workload| {
        let services = vec![service, one.clone(), two.clone()];
        let view = view(services, vec![one_pod.clone(), two_pod.clone(), member()]);
        let step = u64::MAX / 100;
        let sample = |n| Sample { waypoint: n * step + step / 2, ..Sample::default() };
        let lines = (0..100).map(|n| decide_for(source, VIP, &view, sample(n)));
        let lines: Vec<_> = lines.collect();
        ["one", "two", "a"]
            .map(|name| lines.iter().filter(|line| line.split(' ').nth(1) == Some(name)).count())
    };
    assert_eq!(shares(weights(1, 3), &client()), [25, 75, 0]);
    assert_eq!(shares(weights(5, 0), &client()), [100, 0, 0]);
    assert_eq!(shares(weights(0, 0), &client()), [0, 100, 0], "the single one");
    // Either of them has the traffic already.
    assert_eq!(shares(weights(1, 3), &one_pod), [0, 0, 100]);
    assert_eq!(shares(weights(1, 3), &two_pod), [0, 0, 100]);
}

#[test]
fn a_workload_has_a_waypoint_too_but_not_for_services() {
    let (service, workload) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let a = member().with(|it| it.waypoint = Some(named("shop/way").into()));
    let mut view = view(vec![cart(), service], vec![workload, a.clone()]);
    assert_eq!(decide("10.0.1.1:80", &view), "tunnel way 10.0.1.1:80 via 10.0.2.1:15008");
    let direct = "tunnel a 10.0.1.1:8080 via 10.0.1.1:15008 of shop/cart";
    assert_eq!(decide(VIP, &view), direct);
    // One outside the mesh as well.
    view.insert_workload(a.with(|it| it.protocol = Protocol::Plain));
    assert_eq!(decide("10.0.1.1:80", &view), "tunnel way 10.0.1.1:80 via 10.0.2.1:15008");
}

#[test]
fn traffic_from_the_waypoint_is_not_sent_back() {
    let (way, pod) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let direct = "tunnel a 10.0.1.1:80 via 10.0.1.1:15008";
    let by_service = "tunnel a 10.0.1.1:8080 via 10.0.1.1:15008 of shop/cart";
    for gateway in [named("shop/way"), at("", "10.96.0.2", 15008), at("", "10.0.2.1", 15008)] {
        let a = member().with(|it| it.waypoint = Some(gateway.clone().into()));
        let services = vec![behind(gateway.clone()), way.clone()];
        let view = view(services, vec![pod.clone(), a]);
        let from = |source: &Workload, dst| decide_for(source, dst, &view, Sample::default());
        assert_eq!(from(&pod, "10.0.1.1:80"), direct, "{gateway}");
        assert_eq!(from(&pod, VIP), by_service, "{gateway}");
        // An address alone proves nothing, nor does an identity.
        let impostor = pod.clone().with(|it| it.identity = client().identity.clone());
        let sibling = pod.clone().with(|it| it.addresses = client().addresses);
        for other in [impostor, sibling] {
            assert!(from(&other, "10.0.1.1:80").starts_with("tunnel way"), "{gateway}");
            assert!(from(&other, VIP).starts_with("tunnel way"), "{gateway}");
        }
    }
}

/// A workload of another network.
fn far(name: &str, gateway: Option<Gateway>, service: &str) -> Workload {
    backend(name, &["10.0.1.1"], service).with(|it| {
        it.network = "far".into();
        it.network_gateway = gateway.map(Box::new);
    })
}

/// The gateway of that network, as a workload.
fn border() -> Workload {
    pod("border", &["192.0.2.1"], Protocol::Hbone).with(|it| it.network = "far".into())
}

#[test]
fn into_another_network_goes_a_tunnel_in_a_tunnel_for_the_name() {
    let gate = || at("far", "192.0.2.1", 15010);
    let cases = [
        (vec![border()], "tunnel b cart:80 via 192.0.2.1:15010 (border) of shop/cart"),
        (
            vec![],
            "refuse unknown_network_gateway: network gateway far/192.0.2.1 port 15010 is not known",
        ),
    ];
    for (gateways, expected) in cases {
        let mut workloads = gateways;
        workloads.push(far("b", Some(gate()), "shop/cart"));
        let view = view(vec![cart()], workloads);
        assert_eq!(decide(VIP, &view), expected);
        // Its address means somebody else here.
        assert_eq!(decide("10.0.1.1:80", &view), "pass 10.0.1.1:80 - UnknownDestination");
    }
}

#[test]
fn a_workload_without_address_is_reached_through_its_gateway_only() {
    let gate = at("far", "192.0.2.1", 15010);
    let far = far("b", Some(gate.clone()), "shop/cart")
        .with(|it| it.addresses = mesh::Addresses::default());
    let near = far.clone().with(|it| it.network = "".into());
    let reached = "tunnel b cart:80 via 192.0.2.1:15010 (border) of shop/cart";
    assert_eq!(decide(VIP, &view(vec![cart()], vec![border(), far])), reached);
    let decision = decide(VIP, &view(vec![cart()], vec![border(), near]));
    assert!(decision.starts_with("refuse no_endpoint"), "{decision}");
}

#[test]
fn a_gateway_may_be_a_service_and_be_known_by_a_hostname_only() {
    let gate = Service {
        ports: [ServicePort { service_port: 15010, target_port: 15011 }].into(),
        subject_alt_names: vec![Identity::new("", "shop", "edge").unwrap()],
        ..service("shop/gate", "far|192.0.2.9")
    };
    let member = |name: &str, ip: &[&str]| {
        backend(name, ip, "shop/gate").with(|it| it.network = "far".into())
    };
    let addressed = member("border", &["192.0.2.1"]);
    let resolved = member("border", &[]).with(|it| it.hostname = "gate.example.com".into());
    let by_name = Gateway { hbone_port: 15010, ..named("shop/gate") };
    for named in [by_name, at("far", "192.0.2.9", 15010)] {
        for (border, place) in
            [(&addressed, "192.0.2.1:15011"), (&resolved, "gate.example.com:15011")]
        {
            let b = far("b", Some(named.clone()), "shop/cart");
            let view = view(vec![cart(), gate.clone()], vec![b, border.clone()]);
            let expected = format!("tunnel b cart:80 via {place} (border+edge) of shop/cart");
            assert_eq!(decide(VIP, &view), expected, "{named}");
        }
    }
}

#[test]
fn the_gateways_workload_is_drawn_by_a_number_of_its_own() {
    let gate = Service {
        ports: [ServicePort { service_port: 15010, target_port: 15010 }].into(),
        ..service("shop/gate", "far|192.0.2.9")
    };
    let by_name = Gateway { hbone_port: 15010, ..named("shop/gate") };
    let border = |name, ip| backend(name, &[ip], "shop/gate").with(|it| it.network = "far".into());
    let mut workloads = vec![border("x", "192.0.2.1"), border("y", "192.0.2.2")];
    workloads.push(far("b", Some(by_name), "shop/cart"));
    let view = view(vec![cart(), gate], workloads);
    let with = |gateway| {
        let sample = Sample { gateway, ..Sample::default() };
        decide_for(&client(), VIP, &view, sample)
    };
    assert_ne!(with(0), with(u64::MAX));
}

#[test]
fn a_waypoint_in_another_network_is_reached_through_its_gateway() {
    let (service, workload) = waypoint("way", "10.96.0.2", "10.0.2.1");
    let workload = workload.with(|it| {
        it.network = "far".into();
        it.network_gateway = Some(at("far", "192.0.2.1", 15010).into());
    });
    let services = vec![behind(named("shop/way")), service];
    let a = backend("a", &["10.0.1.1"], "shop/cart")
        .with(|it| it.waypoint = Some(named("shop/way").into()));
    let view = view(services, vec![workload, border(), a]);
    let expected = "tunnel way cart:80 via 192.0.2.1:15010 (border) of shop/cart";
    assert_eq!(decide(VIP, &view), expected);
    // Without a service there is no name that would mean something there.
    let expected = "refuse not_service_addressed: Kubernetes//Pod/shop/way is in another network \
                    and was not dialled as a service";
    assert_eq!(decide("10.0.1.1:80", &view), expected);
}
