//! One service, parsed: a name and addresses that stand for several workloads.

mod key;
mod parse;

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::places::Placed;
use crate::workload::Network;

pub use key::ServiceKey;
pub use parse::ServiceError;
pub(crate) use parse::{parse_service_address, parse_visibility};

/// A name and addresses that stand for several workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Key of the resource.
    pub key: ServiceKey,
    /// Its name in its namespace.
    pub name: Arc<str>,
    /// Where it is dialled. Empty where it is known by name only.
    pub addresses: Vec<ServiceAddress>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Who else may answer for it, besides its workloads under their own identities.
    pub subject_alt_names: Vec<Identity>,
    /// Where its traffic goes first.
    pub waypoint: Option<Gateway>,
    /// Several of these instead, each with its share. Where all shares are 0, `waypoint`
    /// counts.
    pub weighted_waypoints: Vec<(Gateway, u32)>,
    /// How one of its workloads is chosen.
    pub load_balancing: LoadBalancing,
    /// Which of a workload's addresses may be used.
    pub ip_families: IpFamilies,
    /// The one to be preferred of several at an address.
    pub canonical: bool,
    /// Who may find it.
    pub visibility: Visibility,
}

/// An address of a service, or a whole range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Where it means something.
    pub network: Network,
    /// The range; an address alone is a range of one.
    pub net: IpNetwork,
}

/// A port of a service, and where its workloads listen for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What clients dial.
    pub service_port: u16,
    /// Where workloads listen that say nothing else; 0 where there is no common one.
    pub target_port: u16,
}

/// How one of several workloads is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancing {
    /// What preferences mean.
    pub mode: Mode,
    /// What a workload should have in common with the client, the most important first.
    pub preferences: Vec<Preference>,
    /// Which workloads count at all.
    pub health: HealthPolicy,
}

/// See [`LoadBalancing::mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Preferences play no part.
    #[default]
    Unspecified,
    /// Only workloads that match all preferences.
    Strict,
    /// Those that match the most, counted until the first that they do not.
    Failover,
    /// None is chosen: traffic goes to the address that was dialled.
    Passthrough,
}

/// What a workload has in common with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The region.
    Region,
    /// The zone; those of two regions may have one name.
    Zone,
    /// The subzone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// Which workloads a service sends traffic to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthPolicy {
    /// Healthy ones.
    #[default]
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamilies {
    /// Nothing is said: both.
    #[default]
    Automatic,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Both.
    Dual,
}

/// Who may find a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Clients of its own namespace.
    Namespace,
}

impl Service {
    /// A service of that name, without addresses, ports or anything else.
    #[must_use]
    pub fn new(key: ServiceKey) -> Self {
        Self {
            name: key.hostname().into(),
            key,
            addresses: Vec::new(),
            ports: Box::default(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            visibility: Visibility::default(),
        }
    }

    /// May clients of this namespace find it?
    #[must_use]
    pub fn visible_to(&self, namespace: &str) -> bool {
        match self.visibility {
            Visibility::Public => true,
            Visibility::Namespace => self.key.namespace() == namespace,
        }
    }

    /// Its port of that number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<ServicePort> {
        self.ports.iter().find(|port| port.service_port == number).copied()
    }
}

impl IpFamilies {
    /// May an address of this family be used?
    #[must_use]
    pub fn allow(self, ip: IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

impl Placed for Service {
    fn places(&self) -> impl Iterator<Item = (&Network, IpNetwork)> {
        self.addresses.iter().map(|it| (&it.network, it.net))
    }
}
