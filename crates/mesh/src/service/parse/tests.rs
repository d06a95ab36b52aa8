use super::*;
use proto::load_balancing::{HealthPolicy as Health, Mode as ModeNumber, Scope};

fn message() -> proto::Service {
    proto::Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        ..Default::default()
    }
}

fn address(bytes: &[u8], length: Option<u32>) -> proto::NetworkAddress {
    proto::NetworkAddress { network: String::new(), address: bytes.to_vec(), length }
}

#[test]
fn a_full_message_becomes_a_service() {
    let waypoint = proto::GatewayAddress {
        destination: Some(proto::gateway_address::Destination::Hostname(
            proto::NamespacedHostname { namespace: "shop".into(), hostname: "way".into() },
        )),
        hbone_mtls_port: 0,
    };
    let service = Service::try_from(proto::Service {
        addresses: vec![address(&[10, 96, 0, 1], None), address(&[10, 97, 3, 1], Some(16))],
        ports: vec![proto::Port { service_port: 80, target_port: 8080, app_protocol: 1 }],
        subject_alt_names: vec!["spiffe://cluster.local/ns/shop/sa/cart".into()],
        waypoint: Some(waypoint.clone()),
        weighted_waypoints: vec![proto::WeightedWaypoint {
            destination: Some(waypoint),
            weight: 7,
        }],
        load_balancing: Some(proto::LoadBalancing {
            routing_preference: vec![Scope::Network as i32, Scope::Zone as i32],
            mode: ModeNumber::Failover as i32,
            health_policy: Health::AllowAll as i32,
        }),
        ip_families: proto::IpFamilies::Dual as i32,
        canonical: true,
        visibility: proto::Visibility::Namespace as i32,
        ..message()
    })
    .unwrap();
    assert_eq!(service.key.to_string(), "shop/cart.shop.svc.cluster.local");
    let nets: Vec<_> = service.addresses.iter().map(|it| it.net.to_string()).collect();
    assert_eq!(nets, ["10.96.0.1/32", "10.97.0.0/16"]);
    assert_eq!(service.port(80), Some(ServicePort { service_port: 80, target_port: 8080 }));
    assert_eq!(service.port(8080), None);
    assert_eq!(service.subject_alt_names.len(), 1);
    assert_eq!(service.waypoint.as_ref().unwrap().to_string(), "shop/way:15008");
    assert_eq!(service.weighted_waypoints, [(service.waypoint.clone().unwrap(), 7)]);
    let expected = LoadBalancing {
        mode: Mode::Failover,
        preferences: vec![Preference::Network, Preference::Zone],
        health: HealthPolicy::AllowAll,
    };
    assert_eq!(service.load_balancing, expected);
    assert_eq!(service.ip_families, IpFamilies::Dual);
    assert!(service.canonical && service.visible_to("shop") && !service.visible_to("bank"));
}

#[test]
fn what_cannot_be_used_is_rejected_with_the_reason() {
    let port = |service_port, target_port| {
        vec![proto::Port { service_port, target_port, app_protocol: 0 }]
    };
    let balanced = |mode, scope| {
        let routing_preference = vec![scope];
        Some(proto::LoadBalancing { routing_preference, mode, health_policy: 0 })
    };
    let unnamed = || Some(proto::GatewayAddress::default());
    let weighted = |destination| vec![proto::WeightedWaypoint { destination, weight: 1 }];
    let cases = [
        (proto::Service { hostname: String::new(), ..message() }, "no usable key"),
        (proto::Service { namespace: "a/b".into(), ..message() }, "no usable key"),
        (proto::Service { addresses: vec![address(&[1, 2, 3], None)], ..message() }, "of 3 bytes"),
        (
            proto::Service { addresses: vec![address(&[10, 0, 0, 1], Some(33))], ..message() },
            "prefix Some(33)",
        ),
        (proto::Service { ports: port(65536, 80), ..message() }, "65536 is not a port"),
        (proto::Service { ports: port(80, 70000), ..message() }, "70000 is not a port"),
        (proto::Service { waypoint: unnamed(), ..message() }, "waypoint names no destination"),
        (
            proto::Service { weighted_waypoints: weighted(unnamed()), ..message() },
            "waypoint names no destination",
        ),
        (
            proto::Service { weighted_waypoints: weighted(None), ..message() },
            "waypoint names no destination",
        ),
        (proto::Service { load_balancing: balanced(9, 1), ..message() }, "mode 9 is not known"),
        (proto::Service { load_balancing: balanced(1, 77), ..message() }, "scope 77"),
        (proto::Service { load_balancing: balanced(1, 0), ..message() }, "scope 0"),
    ];
    for (message, expected) in cases {
        let error = Service::try_from(message).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_later_versions_may_add_is_passed_over_where_that_is_safe() {
    let service = Service::try_from(proto::Service {
        subject_alt_names: vec!["cart.example.com".into()],
        load_balancing: Some(proto::LoadBalancing {
            routing_preference: vec![Scope::Zone as i32, 77, Scope::Node as i32],
            mode: ModeNumber::Failover as i32,
            health_policy: 9,
        }),
        ip_families: 9,
        visibility: 9,
        ..message()
    })
    .unwrap();
    assert_eq!(service.subject_alt_names, []);
    assert_eq!(service.load_balancing.preferences, [Preference::Zone], "up to the unknown one");
    assert_eq!(service.load_balancing.health, HealthPolicy::OnlyHealthy);
    assert_eq!(service.ip_families, IpFamilies::Automatic);
    assert_eq!(service.visibility, Visibility::Public);
}

#[test]
fn an_ipv4_address_in_sixteen_bytes_is_ipv4() {
    let mapped = std::net::Ipv4Addr::new(10, 96, 7, 1).to_ipv6_mapped().octets();
    let net = |length| parse_service_address(&address(&mapped, length)).map(|it| it.net);
    assert_eq!(net(None), Some("10.96.7.1/32".parse().unwrap()));
    assert_eq!(net(Some(112)), Some("10.96.0.0/16".parse().unwrap()));
    assert_eq!(net(Some(95)), None);
}
