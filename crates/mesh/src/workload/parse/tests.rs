use super::*;

fn message() -> proto::Workload {
    proto::Workload {
        uid: "Kubernetes//Pod/shop/cart-1".into(),
        name: "cart-1".into(),
        namespace: "shop".into(),
        ..Default::default()
    }
}

fn port(service_port: u32, target_port: u32) -> proto::PortList {
    proto::PortList { ports: vec![proto::Port { service_port, target_port, app_protocol: 0 }] }
}

fn services(key: &str, list: proto::PortList) -> BTreeMap<String, proto::PortList> {
    BTreeMap::from([(key.to_owned(), list)])
}

fn gateway(port: u32) -> Option<proto::GatewayAddress> {
    let address =
        proto::NetworkAddress { network: "far".into(), address: vec![192, 0, 2, 1], length: None };
    let destination = Some(proto::gateway_address::Destination::Address(address));
    Some(proto::GatewayAddress { destination, hbone_mtls_port: port })
}

#[test]
fn a_full_message_becomes_a_workload() {
    let workload = Workload::try_from(proto::Workload {
        hostname: "db.example.com".into(),
        native_tunnel: true,
        waypoint: gateway(0),
        network_gateway: gateway(15009),
        application_tunnel: Some(proto::ApplicationTunnel { protocol: 1, port: 15088 }),
        services: services("shop/cart", port(80, 8080)),
        status: proto::WorkloadStatus::Unhealthy as i32,
        capacity: Some(5),
        locality: Some(proto::Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "s".into(),
        }),
        workload_type: proto::WorkloadType::Job as i32,
        ..message()
    })
    .unwrap();
    assert_eq!(&*workload.hostname, "db.example.com");
    assert!(workload.native_tunnel);
    assert_eq!(workload.waypoint.as_ref().unwrap().to_string(), "far/192.0.2.1 port 15008");
    assert_eq!(workload.network_gateway.as_ref().unwrap().hbone_port, 15009);
    let tunnel = ApplicationTunnel { protocol: TunnelledProtocol::Proxy, port: Some(15088) };
    assert_eq!(workload.application_tunnel, Some(tunnel));
    let membership = workload.membership(&ServiceKey::parse("shop/cart").unwrap()).unwrap();
    assert_eq!([80, 81].map(|port| membership.target_port(port)), [Some(8080), None]);
    assert_eq!(workload.health, Health::Unhealthy);
    assert_eq!(workload.capacity, 5);
    assert_eq!(&*workload.locality.zone, "z");
    assert_eq!(workload.kind, WorkloadKind::Job);
}

#[test]
fn what_is_left_out_has_the_documented_meaning() {
    let workload = Workload::try_from(message()).unwrap();
    let expected = Workload::new(
        "Kubernetes//Pod/shop/cart-1",
        "shop",
        "cart-1",
        Identity::new("", "shop", "").unwrap(),
    );
    assert_eq!(workload, expected);
    let zero = Workload::try_from(proto::Workload { capacity: Some(0), ..message() }).unwrap();
    assert_eq!(zero.capacity, 0, "said, not left out");
    let unset = proto::ApplicationTunnel { protocol: 0, port: 0 };
    let message = proto::Workload { application_tunnel: Some(unset), ..message() };
    assert_eq!(Workload::try_from(message).unwrap().application_tunnel.unwrap().port, None);
}

#[test]
fn what_cannot_be_used_is_rejected_with_the_reason() {
    let unnamed = || Some(proto::GatewayAddress::default());
    let tunnel = |protocol, port| Some(proto::ApplicationTunnel { protocol, port });
    let cases = [
        (proto::Workload { uid: String::new(), ..message() }, "shop/cart-1 without uid"),
        (proto::Workload { addresses: vec![vec![1]], ..message() }, "address of 1 bytes"),
        (proto::Workload { tunnel_protocol: 2, ..message() }, "tunnel protocol 2"),
        (proto::Workload { namespace: "a b".into(), ..message() }, "\"a b\" is not allowed"),
        (
            proto::Workload { authorization_policies: vec!["p".into()], ..message() },
            "policy \"p\" is not",
        ),
        (
            proto::Workload { services: services("cart", port(1, 1)), ..message() },
            "\"cart\" is not",
        ),
        (
            proto::Workload { services: services("shop/cart", port(65536, 1)), ..message() },
            "65536 is not a port",
        ),
        (
            proto::Workload { services: services("shop/cart", port(1, 65537)), ..message() },
            "65537 is not a port",
        ),
        (proto::Workload { waypoint: unnamed(), ..message() }, "waypoint names no destination"),
        (proto::Workload { network_gateway: unnamed(), ..message() }, "network gateway names no"),
        (proto::Workload { waypoint: gateway(65536), ..message() }, "waypoint 65536 is not a port"),
        (
            proto::Workload { application_tunnel: tunnel(2, 1), ..message() },
            "application tunnel 2 is not supported",
        ),
        (
            proto::Workload { application_tunnel: tunnel(1, 65536), ..message() },
            "65536 is not a port",
        ),
    ];
    for (message, expected) in cases {
        let error = Workload::try_from(message).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn numbers_of_a_later_version_are_read_with_care() {
    let message = proto::Workload { status: 9, workload_type: 9, network_mode: 9, ..message() };
    let workload = Workload::try_from(message).unwrap();
    assert_eq!(workload.health, Health::Unhealthy);
    assert_eq!(workload.kind, WorkloadKind::Pod);
    assert!(!workload.host_network);
}
