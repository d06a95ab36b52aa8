//! Messages of the control plane, right and wrong. Names and addresses come from small
//! sets, so that things meet.

use arbitrary::Arbitrary;
use mesh::proto::security as policy;
use mesh::proto::workload as wds;

/// A text, most often one that occurs elsewhere too.
#[derive(Clone, Debug, Arbitrary)]
pub enum Text {
    Shop,
    Cart,
    Cluster,
    Principal,
    Hostname,
    Key,
    Empty,
    Other(String),
}

impl Text {
    #[must_use]
    pub fn string(&self) -> String {
        match self {
            Self::Shop => "shop",
            Self::Cart => "cart",
            Self::Cluster => "cluster.local",
            Self::Principal => "cluster.local/ns/shop/sa/cart",
            Self::Hostname => "cart.shop.svc.cluster.local",
            Self::Key => "shop/cart.shop.svc.cluster.local",
            Self::Empty => "",
            Self::Other(text) => text,
        }
        .to_owned()
    }
}

/// An address, most often one that occurs elsewhere too.
#[derive(Clone, Debug, Arbitrary)]
pub enum Ip {
    V4(u8),
    V6(u8),
    Mapped(u8),
    Bytes(Vec<u8>),
}

impl Ip {
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(last) => vec![10, 0, 0, last % 8],
            Self::V6(last) => [&[0xfd; 15][..], &[last % 8]].concat(),
            Self::Mapped(last) => [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, last % 8]].concat(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

#[derive(Clone, Debug, Arbitrary)]
pub struct Authorization {
    name: Text,
    namespace: Text,
    scope: u8,
    action: u8,
    rules: Vec<Vec<Vec<Match>>>,
    dry_run: bool,
}

#[derive(Clone, Debug, Arbitrary)]
enum Match {
    Namespaces(Matcher, bool),
    Principals(Matcher, bool),
    Source(Ip, u8, bool),
    Destination(Ip, u8, bool),
    Port(u32, bool),
    Account(Text, Text, bool),
    Extension,
    Nothing,
}

#[derive(Clone, Debug, Arbitrary)]
enum Matcher {
    Exact(Text),
    Prefix(Text),
    Suffix(Text),
    Presence,
    Unknown,
}

impl Authorization {
    /// One that is never enforced.
    #[must_use]
    pub fn dry(self) -> Self {
        Self { dry_run: true, ..self }
    }

    #[must_use]
    pub fn message(&self) -> policy::Authorization {
        let clause = |matches: &Vec<Match>| policy::Clause {
            matches: matches.iter().map(Match::message).collect(),
        };
        let rule = |clauses: &Vec<Vec<Match>>| policy::Rule {
            clauses: clauses.iter().map(clause).collect(),
        };
        policy::Authorization {
            name: self.name.string(),
            namespace: self.namespace.string(),
            scope: i32::from(self.scope % 4),
            action: i32::from(self.action % 3),
            rules: self.rules.iter().map(rule).collect(),
            dry_run: self.dry_run,
            extensions: Vec::new(),
        }
    }
}

impl Match {
    fn message(&self) -> policy::Match {
        let mut message = policy::Match::default();
        let address = |ip: &Ip, length: u8| policy::Address { address: ip.bytes(), length: length.into() };
        match self {
            Self::Namespaces(text, false) => message.namespaces.push(text.message()),
            Self::Namespaces(text, true) => message.not_namespaces.push(text.message()),
            Self::Principals(text, false) => message.principals.push(text.message()),
            Self::Principals(text, true) => message.not_principals.push(text.message()),
            Self::Source(ip, length, false) => message.source_ips.push(address(ip, *length)),
            Self::Source(ip, length, true) => message.not_source_ips.push(address(ip, *length)),
            Self::Destination(ip, length, false) => {
                message.destination_ips.push(address(ip, *length));
            }
            Self::Destination(ip, length, true) => {
                message.not_destination_ips.push(address(ip, *length));
            }
            Self::Port(port, false) => message.destination_ports.push(*port),
            Self::Port(port, true) => message.not_destination_ports.push(*port),
            Self::Account(namespace, name, not) => {
                let account = policy::ServiceAccountMatch {
                    namespace: namespace.string(),
                    service_account: name.string(),
                };
                let list = if *not {
                    &mut message.not_service_accounts
                } else {
                    &mut message.service_accounts
                };
                list.push(account);
            }
            Self::Extension => message.extensions.push(policy::Extension::default()),
            Self::Nothing => {}
        }
        message
    }
}

impl Matcher {
    fn message(&self) -> policy::StringMatch {
        use policy::string_match::MatchType;
        let match_type = match self {
            Self::Exact(text) => Some(MatchType::Exact(text.string())),
            Self::Prefix(text) => Some(MatchType::Prefix(text.string())),
            Self::Suffix(text) => Some(MatchType::Suffix(text.string())),
            Self::Presence => Some(MatchType::Presence(policy::Empty {})),
            Self::Unknown => None,
        };
        policy::StringMatch { match_type }
    }
}

#[derive(Clone, Debug, Arbitrary)]
pub struct Workload {
    pub uid: Text,
    namespace: Text,
    addresses: Vec<Ip>,
    network: Text,
    tunnel_protocol: u8,
    services: Vec<(Text, Vec<(u32, u32)>)>,
    policies: Vec<Text>,
    waypoint: Option<Gateway>,
    network_gateway: Option<Gateway>,
    host_network: bool,
    status: u8,
    capacity: Option<u32>,
}

#[derive(Clone, Debug, Arbitrary)]
pub struct Service {
    namespace: Text,
    hostname: Text,
    addresses: Vec<(Text, Ip, Option<u8>)>,
    ports: Vec<(u32, u32)>,
    waypoint: Option<Gateway>,
    weighted: Vec<(Option<Gateway>, u32)>,
    balancing: Option<(Vec<u8>, u8, u8)>,
    canonical: bool,
    visibility: u8,
    families: u8,
}

#[derive(Clone, Debug, Arbitrary)]
enum Gateway {
    Hostname(Text, Text, u32),
    Address(Text, Ip, u32),
    Nothing,
}

impl Gateway {
    fn message(&self) -> wds::GatewayAddress {
        use wds::gateway_address::Destination;
        let (destination, hbone_mtls_port) = match self {
            Self::Hostname(namespace, hostname, port) => {
                let (namespace, hostname) = (namespace.string(), hostname.string());
                let name = wds::NamespacedHostname { namespace, hostname };
                (Some(Destination::Hostname(name)), *port)
            }
            Self::Address(network, ip, port) => {
                let (network, address) = (network.string(), ip.bytes());
                let address = wds::NetworkAddress { network, address, length: None };
                (Some(Destination::Address(address)), *port)
            }
            Self::Nothing => (None, 0),
        };
        wds::GatewayAddress { destination, hbone_mtls_port }
    }
}

fn ports(pairs: &[(u32, u32)]) -> Vec<wds::Port> {
    let port = |(service_port, target_port): &(u32, u32)| wds::Port {
        service_port: *service_port,
        target_port: *target_port,
        ..Default::default()
    };
    pairs.iter().map(port).collect()
}

impl Workload {
    #[must_use]
    pub fn message(&self) -> wds::Workload {
        let list = |(key, pairs): &(Text, Vec<(u32, u32)>)| {
            (key.string(), wds::PortList { ports: ports(pairs) })
        };
        wds::Workload {
            uid: self.uid.string(),
            name: "cart-1".to_owned(),
            namespace: self.namespace.string(),
            addresses: self.addresses.iter().map(Ip::bytes).collect(),
            network: self.network.string(),
            tunnel_protocol: i32::from(self.tunnel_protocol % 4),
            services: self.services.iter().map(list).collect(),
            authorization_policies: self.policies.iter().map(Text::string).collect(),
            waypoint: self.waypoint.as_ref().map(Gateway::message),
            network_gateway: self.network_gateway.as_ref().map(Gateway::message),
            network_mode: i32::from(self.host_network),
            status: i32::from(self.status % 3),
            capacity: self.capacity,
            ..Default::default()
        }
    }
}

impl Service {
    /// The name of its resource.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace.string(), self.hostname.string())
    }

    #[must_use]
    pub fn message(&self) -> wds::Service {
        let address = |(network, ip, length): &(Text, Ip, Option<u8>)| wds::NetworkAddress {
            network: network.string(),
            address: ip.bytes(),
            length: length.map(u32::from),
        };
        let weighted = |(gateway, weight): &(Option<Gateway>, u32)| wds::WeightedWaypoint {
            destination: gateway.as_ref().map(Gateway::message),
            weight: *weight,
        };
        let balancing = |(scopes, mode, health): &(Vec<u8>, u8, u8)| wds::LoadBalancing {
            routing_preference: scopes.iter().map(|scope| i32::from(scope % 8)).collect(),
            mode: i32::from(mode % 5),
            health_policy: i32::from(health % 3),
        };
        wds::Service {
            name: "cart".to_owned(),
            namespace: self.namespace.string(),
            hostname: self.hostname.string(),
            addresses: self.addresses.iter().map(address).collect(),
            ports: ports(&self.ports),
            waypoint: self.waypoint.as_ref().map(Gateway::message),
            weighted_waypoints: self.weighted.iter().map(weighted).collect(),
            load_balancing: self.balancing.as_ref().map(balancing),
            canonical: self.canonical,
            visibility: i32::from(self.visibility % 3),
            ip_families: i32::from(self.families % 5),
            ..Default::default()
        }
    }
}

impl Authorization {
    /// The name of its resource.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace.string(), self.name.string())
    }
}
