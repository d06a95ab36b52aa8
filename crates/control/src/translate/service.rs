//! A service becomes a service of the mesh, and tells which ports its endpoints have.

use mesh::proto::workload::load_balancing::{HealthPolicy, Mode, Scope};
use mesh::proto::workload::{IpFamilies, LoadBalancing, NetworkAddress, Port, PortList, Service};

use super::Names;
use super::workload::octets;
use crate::facts::{
    Distribution, Families, Internal, PodFacts, ServiceFacts, ServiceType, SliceFacts, TargetPort,
    Unready,
};

/// Name of the resource that a service becomes, `namespace/hostname`.
pub(crate) fn service_name(names: &Names, facts: &ServiceFacts) -> String {
    format!("{}/{}", facts.namespace, hostname(names, facts))
}

fn hostname(names: &Names, facts: &ServiceFacts) -> String {
    format!("{}.{}.svc.{}", facts.name, facts.namespace, names.cluster_domain)
}

/// The service; `None` for one that is an alias in DNS only.
pub(crate) fn service(names: &Names, facts: &ServiceFacts) -> Option<Service> {
    if facts.kind == ServiceType::ExternalName {
        return None;
    }
    let address = |ip| NetworkAddress { address: octets(ip), ..NetworkAddress::default() };
    let ports = facts.ports.iter().map(|port| match port.target {
        TargetPort::Number(target) => mapping(port.port, target),
        // Only the pods know it.
        TargetPort::Name(_) => mapping(port.port, 0),
    });
    Some(Service {
        name: facts.name.clone(),
        namespace: facts.namespace.clone(),
        hostname: hostname(names, facts),
        addresses: facts.addresses.iter().map(address).collect(),
        ports: ports.collect(),
        load_balancing: load_balancing(facts),
        ip_families: match facts.families {
            Families::Unknown => IpFamilies::Automatic,
            Families::V4 => IpFamilies::Ipv4Only,
            Families::V6 => IpFamilies::Ipv6Only,
            Families::Dual => IpFamilies::Dual,
        } as i32,
        // There is no other object that this hostname could come from.
        canonical: true,
        ..Service::default()
    })
}

/// `None` where any healthy endpoint will do.
fn load_balancing(facts: &ServiceFacts) -> Option<LoadBalancing> {
    use Scope::{Network, Node, Region, Subzone, Zone};
    let (mode, preference): (_, &[Scope]) = match (facts.internal, facts.distribution) {
        (Internal::Local, _) => (Mode::Strict, &[Node]),
        (_, Distribution::SameZone) => (Mode::Failover, &[Network, Region, Zone, Subzone]),
        (_, Distribution::SameNode) => (Mode::Failover, &[Network, Region, Zone, Subzone, Node]),
        (_, Distribution::Any) => (Mode::UnspecifiedMode, &[]),
    };
    let health = match facts.unready {
        Unready::LeftOut => HealthPolicy::OnlyHealthy,
        Unready::Published => HealthPolicy::AllowAll,
    };
    let balancing = LoadBalancing {
        routing_preference: preference.iter().map(|scope| *scope as i32).collect(),
        mode: mode as i32,
        health_policy: health as i32,
    };
    (balancing != LoadBalancing::default()).then_some(balancing)
}

/// The ports under which a pod serves a service that selects it. A port whose name no
/// container of the pod has is left out: there the pod does not serve it.
pub(crate) fn pod_ports(service: &ServiceFacts, pod: &PodFacts) -> PortList {
    let ports = service.ports.iter().filter_map(|port| match &port.target {
        TargetPort::Number(target) => Some(mapping(port.port, *target)),
        TargetPort::Name(name) => pod.ports.get(name).map(|target| mapping(port.port, *target)),
    });
    PortList { ports: ports.collect() }
}

/// The ports under which the endpoints of a slice serve its service: slices name the
/// service's ports and number the endpoints'.
pub(crate) fn slice_ports(service: &ServiceFacts, slice: &SliceFacts) -> PortList {
    let ports = service.ports.iter().filter_map(|port| {
        let own = slice.ports.iter().find(|own| own.name == port.name)?;
        Some(mapping(port.port, own.port))
    });
    PortList { ports: ports.collect() }
}

fn mapping(service: u16, target: u16) -> Port {
    Port { service_port: service.into(), target_port: target.into(), ..Port::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::SlicePort;
    use crate::testing::{self, names, pod, port};

    fn shop() -> ServiceFacts {
        testing::service("shop", "cart")
    }

    #[test]
    fn a_service_is_sent_with_its_name_addresses_and_ports() {
        let facts = ServiceFacts {
            addresses: vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()],
            families: Families::Dual,
            ports: vec![
                port("http", 80, TargetPort::Number(8080)),
                port("admin", 81, TargetPort::Name("admin".into())),
            ],
            ..shop()
        };
        let message = service(&names(), &facts).unwrap();
        assert_eq!(service_name(&names(), &facts), "shop/cart.shop.svc.cluster.local");
        assert_eq!(message.hostname, "cart.shop.svc.cluster.local");
        assert_eq!(message.addresses[0].address, [10, 96, 0, 1]);
        assert_eq!(message.addresses[1].address.len(), 16);
        assert_eq!(message.ports, [mapping(80, 8080), mapping(81, 0)]);
        assert_eq!(message.ip_families(), IpFamilies::Dual);
        assert_eq!(message.load_balancing, None);
        assert!(message.canonical);
        // The receiving end reads it without complaint.
        let parsed = mesh::Service::try_from(message).unwrap();
        assert_eq!(parsed.key.to_string(), "shop/cart.shop.svc.cluster.local");
    }

    #[test]
    fn a_headless_service_has_no_address_and_an_alias_is_not_sent() {
        let headless = ServiceFacts { addresses: vec![], ..shop() };
        assert_eq!(service(&names(), &headless).unwrap().addresses, []);
        let alias = ServiceFacts { kind: ServiceType::ExternalName, ..shop() };
        assert_eq!(service(&names(), &alias), None);
        assert!(!alias.selects(&alias.selector));
    }

    #[test]
    fn load_balancing_follows_the_services_own_fields() {
        use Scope::{Network, Node, Region, Subzone, Zone};
        let zone: &[Scope] = &[Network, Region, Zone, Subzone];
        let node: &[Scope] = &[Network, Region, Zone, Subzone, Node];
        for (internal, distribution, unready, mode, preference, health) in [
            (Internal::Cluster, Distribution::SameZone, Unready::LeftOut, Mode::Failover, zone, 0),
            (Internal::Cluster, Distribution::SameNode, Unready::LeftOut, Mode::Failover, node, 0),
            (Internal::Local, Distribution::Any, Unready::LeftOut, Mode::Strict, &[Node], 0),
            (Internal::Local, Distribution::SameZone, Unready::Published, Mode::Strict, &[Node], 1),
            (
                Internal::Cluster,
                Distribution::Any,
                Unready::Published,
                Mode::UnspecifiedMode,
                &[],
                1,
            ),
        ] {
            let facts = ServiceFacts { internal, distribution, unready, ..shop() };
            let message = service(&names(), &facts).unwrap();
            let balancing = message.load_balancing.clone().unwrap();
            assert_eq!(balancing.mode(), mode, "{facts:?}");
            let wanted: Vec<_> = preference.iter().map(|scope| *scope as i32).collect();
            assert_eq!(balancing.routing_preference, wanted, "{facts:?}");
            assert_eq!(balancing.health_policy, health, "{facts:?}");
            mesh::Service::try_from(message).unwrap();
        }
    }

    #[test]
    fn named_ports_are_looked_up_in_each_pod() {
        let facts = ServiceFacts {
            ports: vec![
                port("a", 80, TargetPort::Number(8080)),
                port("b", 81, TargetPort::Name("web".into())),
                port("c", 82, TargetPort::Name("missing".into())),
            ],
            ..shop()
        };
        let with = PodFacts { ports: [("web".to_owned(), 9090)].into(), ..pod("shop", "cart-1") };
        assert_eq!(pod_ports(&facts, &with).ports, [mapping(80, 8080), mapping(81, 9090)]);
        assert_eq!(pod_ports(&facts, &pod("shop", "cart-2")).ports, [mapping(80, 8080)]);
    }

    #[test]
    fn a_slice_names_ports_of_its_service() {
        let facts = ServiceFacts {
            ports: vec![
                port("a", 80, TargetPort::Name("web".into())),
                port("b", 81, TargetPort::Number(1)),
            ],
            ..shop()
        };
        let ports = [("a", 7000), ("other", 7001)];
        let slice = SliceFacts {
            namespace: "shop".into(),
            name: "cart-x".into(),
            service: "cart".into(),
            ports: ports.map(|(name, port)| SlicePort { name: name.into(), port }).to_vec(),
            endpoints: vec![],
        };
        assert_eq!(slice_ports(&facts, &slice).ports, [mapping(80, 7000)]);
    }
}
