//! Where requests lead.

use mesh::{
    ApplicationTunnel, Identity, Membership, PortMapping, ServiceAddress, ServiceKey, ServicePort,
    Visibility,
};
use proptest::prelude::*;

use super::super::super::target::asked;
use super::*;

const OWN: [&str; 2] = ["10.0.0.7", "fd00::7"];

fn own() -> Workload {
    let own = Workload::new("own", "shop", "own", Identity::new("", "shop", "own").unwrap());
    own.with(|it| it.addresses = OWN.iter().map(|ip| ip.parse().unwrap()).collect())
}

fn service(name: &str, vips: &[&str]) -> Service {
    let address = |ip: &&str| ServiceAddress { network: "".into(), net: ip.parse().unwrap() };
    Service {
        addresses: vips.iter().map(address).collect(),
        ports: [
            ServicePort { service_port: 80, target_port: 8080 },
            ServicePort { service_port: 81, target_port: 15008 },
            ServicePort { service_port: 82, target_port: 0 },
        ]
        .into(),
        ..Service::new(ServiceKey::new("shop", name).unwrap())
    }
}

fn behind(own: Workload, name: &str) -> Workload {
    let ports = [PortMapping { service_port: 82, target_port: 9082 }].into();
    let membership = Membership { service: ServiceKey::new("shop", name).unwrap(), ports };
    own.with(|it| it.services = [membership].into())
}

fn gateway(ip: &str) -> Gateway {
    let destination = GatewayDestination::Address { network: "".into(), ip: ip.parse().unwrap() };
    Gateway { destination, hbone_port: 15008 }
}

fn tunnel(protocol: TunnelledProtocol, port: Option<u16>) -> Option<ApplicationTunnel> {
    Some(ApplicationTunnel { protocol, port })
}

/// What becomes of a request that came in at the pod's IPv4 address.
fn lead(view: &View, own: &Workload, authority: &str) -> String {
    let arrival = Arrival {
        view,
        own,
        local: OWN[0].parse().unwrap(),
        client_namespace: "shop",
        app_tunnel: AppTunnel::Loopback,
    };
    match asked(Some(authority)).and_then(|asked| arrival.destination(&asked)) {
        Ok(Destination { app, way: Way::Direct, .. }) => app.to_string(),
        Ok(Destination { way: Way::Prefaced { at, meant }, .. }) => format!("{at} for {meant}"),
        Err(refusal) => refusal.name().to_owned(),
    }
}

fn view(services: impl IntoIterator<Item = Service>, own: &Workload) -> View {
    let mut view = View::default();
    view.insert_workload(own.clone());
    services.into_iter().for_each(|service| view.insert_service(service));
    view
}

#[test]
fn a_pod_is_reached_at_its_own_address_and_by_the_names_of_its_services() {
    let own = behind(own(), "cart");
    let view = view([service("cart", &["10.1.0.1"]), service("db", &["10.1.0.2"])], &own);
    let cases = [
        ("10.0.0.7:80", "10.0.0.7:80"),
        ("[::ffff:10.0.0.7]:80", "10.0.0.7:80"),
        ("[fd00::7]:80", "foreign_target"),
        ("10.0.0.8:80", "foreign_target"),
        ("10.1.0.1:80", "foreign_target"),
        ("cart:80", "10.0.0.7:8080"),
        ("cart:82", "10.0.0.7:9082"),
        ("cart:81", "proxy_port"),
        ("cart:83", "unserved"),
        ("db:80", "unserved"),
        ("nobody:80", "unserved"),
    ];
    for (authority, expected) in cases {
        assert_eq!(lead(&view, &own, authority), expected, "{authority}");
    }
}

#[test]
fn a_waypoint_is_reached_for_what_is_behind_it() {
    let own = behind(own(), "way");
    let by_name = Gateway {
        destination: GatewayDestination::Hostname(ServiceKey::new("shop", "way").unwrap()),
        hbone_port: 15008,
    };
    let mine = |name, vip, waypoint| Service { waypoint: Some(waypoint), ..service(name, &[vip]) };
    let mut view = view(
        [
            service("way", &["10.1.0.9"]),
            mine("a", "10.1.0.1", gateway("10.0.0.7")),
            mine("b", "10.1.0.2", gateway("10.1.0.9")),
            mine("c", "10.1.0.3", by_name.clone()),
            mine("d", "10.1.0.4", gateway("10.0.0.9")),
            Service {
                weighted_waypoints: vec![(gateway("10.0.0.9"), 1), (by_name.clone(), 1)],
                ..service("e", &["10.1.0.5"])
            },
            Service { visibility: Visibility::Namespace, ..mine("f", "10.1.0.6", by_name) },
        ],
        &own,
    );
    let identity = Identity::new("", "shop", "x").unwrap();
    view.insert_workload(Workload::new("x", "shop", "x", identity.clone()).with(|it| {
        it.addresses = ["10.0.0.20".parse().unwrap()].into_iter().collect();
        it.waypoint = Some(gateway("10.1.0.9").into());
    }));
    let far = Workload::new("y", "shop", "y", identity).with(|it| {
        it.network_gateway = Some(gateway("10.0.0.7").into());
        it.network = "far".into();
    });
    view.insert_service(service("g", &["10.1.0.7"]));
    view.insert_workload(behind(far, "g"));
    for vip in ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.5", "10.1.0.6", "10.1.0.7"] {
        assert_eq!(lead(&view, &own, &format!("{vip}:80")), "10.0.0.7:80", "{vip}");
    }
    let cases = [
        ("10.1.0.4:80", "foreign_target"),
        ("10.0.0.20:5000", "10.0.0.7:5000"),
        ("10.0.0.21:5000", "foreign_target"),
        ("a:80", "10.0.0.7:80"),
        ("a:99", "unserved"),
        ("d:80", "unserved"),
        ("g:80", "10.0.0.7:80"),
    ];
    for (authority, expected) in cases {
        assert_eq!(lead(&view, &own, authority), expected, "{authority}");
    }
}

#[test]
fn an_application_tunnel_takes_everything_in_one_place() {
    let proxy = behind(own(), "cart")
        .with(|it| it.application_tunnel = tunnel(TunnelledProtocol::Proxy, Some(15088)));
    let mut foreign = service("vip6", &["fd01::1", "10.1.0.3"]);
    foreign.addresses[1].network = "far".into();
    let services =
        || [service("cart", &["fd01::9", "10.1.0.1"]), service("headless", &[]), foreign.clone()];
    let view = view(services(), &proxy);
    let cases = [
        ("10.0.0.7:80", "127.0.0.1:15088 for 10.0.0.7:80"),
        ("10.1.0.1:80", "127.0.0.1:15088 for 10.1.0.1:80"),
        ("192.0.2.1:80", "127.0.0.1:15088 for 192.0.2.1:80"),
        ("169.254.169.254:80", "foreign_target"),
        ("127.0.0.1:80", "foreign_target"),
        ("cart:80", "127.0.0.1:15088 for 10.1.0.1:80"),
        ("vip6:80", "127.0.0.1:15088 for [fd01::1]:80"),
        ("headless:80", "unserved"),
        ("nobody:80", "unserved"),
    ];
    for (authority, expected) in cases {
        assert_eq!(lead(&view, &proxy, authority), expected, "{authority}");
    }
    let of = |tunnel| proxy.clone().with(|it| it.application_tunnel = tunnel);
    let own_port = of(tunnel(TunnelledProtocol::Proxy, None));
    assert_eq!(lead(&view, &own_port, "cart:80"), "127.0.0.1:8080 for 10.1.0.1:80");
    let bare = of(tunnel(TunnelledProtocol::None, Some(9000)));
    assert_eq!(lead(&view, &bare, "10.0.0.7:80"), "10.0.0.7:9000");
    let loop_back = of(tunnel(TunnelledProtocol::Proxy, Some(15001)));
    assert_eq!(lead(&view, &loop_back, "10.0.0.7:80"), "proxy_port");
}

#[test]
fn the_service_is_guessed_by_name_then_by_port() {
    let own = behind(own(), "cart");
    let view = view([service("cart", &[]), service("db", &[])], &own);
    let guess = |said, port| guessed(&view, &own, said, port).map(|it| it.key.to_string());
    let cart = Some("shop/cart".to_owned());
    assert_eq!(guess(Some("cart"), 1), cart);
    assert_eq!(guess(Some("db"), 1), None, "the pod is not behind that");
    assert_eq!(guess(None, 8080), cart);
    assert_eq!(guess(None, 9082), cart);
    assert_eq!(guess(None, 80), None);
}

fn authorities() -> impl Strategy<Value = String> {
    let ip = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
        prop::sample::select(vec![
            "10.0.0.7",
            "[fd00::7]",
            "10.1.0.1",
            "10.1.0.2",
            "127.0.0.1",
            "[::1]",
            "0.0.0.0",
            "169.254.169.254",
            "[::ffff:127.0.0.1]",
            "10.0.0.9",
            "cart",
            "way",
            "db",
            "localhost",
        ])
        .prop_map(str::to_owned),
    ];
    let port = prop_oneof![
        any::<u16>(),
        prop::sample::select(vec![0, 80, 81, 82, 15001, 15006, 15008, 15053]),
    ];
    prop_oneof![
        9 => (ip, port).prop_map(|(ip, port)| format!("{ip}:{port}")),
        1 => ".{0,40}",
    ]
}

fn locals() -> impl Strategy<Value = IpAddr> {
    let some = ["10.0.0.7", "fd00::7", "::ffff:10.0.0.7", "127.0.0.1", "::1", "fe80::1"];
    prop::sample::select(some.map(|ip| ip.parse().unwrap()).to_vec())
}

fn tunnels() -> impl Strategy<Value = Option<ApplicationTunnel>> {
    let protocol = prop_oneof![Just(TunnelledProtocol::None), Just(TunnelledProtocol::Proxy)];
    let port = prop::option::of(prop_oneof![any::<u16>(), Just(15008), Just(15088)]);
    prop::option::of(
        (protocol, port).prop_map(|(protocol, port)| ApplicationTunnel { protocol, port }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn nothing_is_dialled_outside_of_the_own_pod(
        authority in authorities(),
        local in locals(),
        application_tunnel in tunnels(),
        member in prop::sample::select(vec!["cart", "way", "none"]),
        waypoint in prop::sample::select(vec!["10.0.0.7", "10.0.0.9", "10.1.0.2", "127.0.0.1"]),
        app_tunnel in prop_oneof![Just(AppTunnel::Loopback), Just(AppTunnel::PodAddress)],
    ) {
        let own = behind(own(), member).with(|it| it.application_tunnel = application_tunnel);
        let cart = Service { waypoint: Some(gateway(waypoint)), ..service("cart", &["10.1.0.1"]) };
        let everything = Service { waypoint: Some(gateway(waypoint)), ..service("db", &["0.0.0.0/0"]) };
        let view = view([cart, service("way", &["10.1.0.2"]), everything], &own);
        let arrival = Arrival { view: &view, own: &own, local, client_namespace: "shop", app_tunnel };
        let found = asked(Some(&authority)).and_then(|asked| arrival.destination(&asked));
        let Ok(Destination { app, way, .. }) = found else { return Ok(()) };
        let dialled = match way {
            Way::Direct => app,
            Way::Prefaced { at, meant } => {
                prop_assert!(addressable(meant.ip()) && meant.port() != 0, "{meant}");
                at
            }
        };
        let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), app.port());
        let inside = dialled.ip() == local.to_canonical() && addressable(dialled.ip())
            || application_tunnel.is_some_and(|it| it.protocol == TunnelledProtocol::Proxy)
                && app_tunnel == AppTunnel::Loopback && dialled == loopback;
        prop_assert!(inside, "{authority} leads to {dialled}");
        for addr in [app, dialled] {
            prop_assert!(!zds::PROXY_PORTS.contains(&addr.port()) && addr.port() != 0, "{addr}");
        }
        prop_assert_eq!(app.ip(), local.to_canonical());
    }
}
