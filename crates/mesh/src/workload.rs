//! One workload, parsed.

mod parse;

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::places::Placed;
use crate::policy::PolicyKey;
use crate::service::ServiceKey;

pub use parse::WorkloadError;
pub(crate) use parse::parse_address;

/// Key of a workload resource.
pub type Uid = Arc<str>;

/// Name of a network: addresses are unique within one.
pub type Network = Arc<str>;

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain TCP: it is not in the mesh.
    Plain,
    /// Through an HBONE tunnel.
    Hbone,
}

/// Anything with an address that traffic can come from or go to; most often a pod.
///
/// There may be 100,000: what many have in common is shared, what few have is boxed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Key of the resource.
    pub uid: Uid,
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Trust domain, namespace and service account.
    pub identity: Identity,
    /// Its network.
    pub network: Network,
    /// Its addresses in that network.
    pub addresses: Vec<IpAddr>,
    /// A name to be resolved where there is no address; empty where there is none.
    pub hostname: Arc<str>,
    /// How it is reached.
    pub protocol: Protocol,
    /// It speaks HBONE itself, without a ztunnel.
    pub native_tunnel: bool,
    /// Shares its node's addresses; never found by them.
    pub host_network: bool,
    /// Whether services should send traffic to it.
    pub health: Health,
    /// What `owner` is.
    pub kind: WorkloadKind,
    /// Its share of traffic among the workloads of a service.
    pub capacity: u32,
    /// How its application wants traffic that was meant for others too.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Where traffic that is addressed to it goes first.
    pub waypoint: Option<Box<Gateway>>,
    /// The way in from other networks.
    pub network_gateway: Option<Box<Gateway>>,
    /// Services that it is an endpoint of.
    pub services: Arc<[Membership]>,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Node name.
    pub node: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Canonical name, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// Name of the owner (Deployment, Job, ...), for telemetry.
    pub owner: Arc<str>,
    /// Policies that select it.
    pub policies: Arc<[PolicyKey]>,
}

/// Should services send traffic to a workload?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Yes.
    #[default]
    Healthy,
    /// No, unless they ask for all.
    Unhealthy,
}

/// What a workload belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// A Deployment.
    #[default]
    Deployment,
    /// A CronJob.
    CronJob,
    /// Itself.
    Pod,
    /// A Job.
    Job,
}

/// A workload's part in a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The service.
    pub service: ServiceKey,
    /// Where this workload listens for the service's ports, if it says so.
    pub ports: Box<[PortMapping]>,
}

/// A port of a service and where a workload listens for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// What clients dial.
    pub service_port: u16,
    /// Where the workload listens.
    pub target_port: u16,
}

/// How an application wants traffic that was addressed to others: with a preface that
/// tells it whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// The preface.
    pub protocol: TunnelledProtocol,
    /// The port for such traffic; `None` for the one that was asked for.
    pub port: Option<u16>,
}

/// See [`ApplicationTunnel::protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelledProtocol {
    /// No preface.
    None,
    /// The header of the PROXY protocol.
    Proxy,
}

/// Where something runs, from the largest to the smallest; empty where not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone of the region.
    pub zone: Arc<str>,
    /// Part of the zone.
    pub subzone: Arc<str>,
}

impl Workload {
    /// A plain, healthy workload of these names, without address.
    #[must_use]
    pub fn new(uid: &str, namespace: &str, name: &str, identity: Identity) -> Self {
        let empty = Arc::<str>::from("");
        Self {
            uid: uid.into(),
            name: name.into(),
            namespace: namespace.into(),
            identity,
            network: Arc::clone(&empty),
            addresses: Vec::new(),
            hostname: Arc::clone(&empty),
            protocol: Protocol::Plain,
            native_tunnel: false,
            host_network: false,
            health: Health::default(),
            kind: WorkloadKind::default(),
            capacity: 1,
            application_tunnel: None,
            waypoint: None,
            network_gateway: None,
            services: Arc::default(),
            locality: Arc::new(Locality::default()),
            node: Arc::clone(&empty),
            cluster: "Kubernetes".into(),
            canonical_name: Arc::clone(&empty),
            canonical_revision: Arc::clone(&empty),
            owner: empty,
            policies: Arc::default(),
        }
    }

    /// Its part in that service.
    #[must_use]
    pub fn membership(&self, service: &ServiceKey) -> Option<&Membership> {
        self.services.iter().find(|it| it.service == *service)
    }
}

impl Membership {
    /// Where the workload listens for a port of the service, if it says so.
    #[must_use]
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        let mapping = self.ports.iter().find(|it| it.service_port == service_port);
        mapping.map(|it| it.target_port).filter(|port| *port != 0)
    }
}

impl Default for Locality {
    fn default() -> Self {
        let empty = Arc::<str>::from("");
        Self { region: Arc::clone(&empty), zone: Arc::clone(&empty), subzone: empty }
    }
}

/// A workload of the host network has no address of its own.
impl Placed for Workload {
    fn places(&self) -> impl Iterator<Item = (&Network, IpNetwork)> {
        let own: &[IpAddr] = if self.host_network { &[] } else { &self.addresses };
        own.iter().map(|ip| (&self.network, IpNetwork::from(ip.to_canonical())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The indices add some 25 bytes each, the unique texts some 100.
    #[test]
    fn a_workload_is_small() {
        assert!(size_of::<Workload>() <= 264, "{} bytes", size_of::<Workload>());
    }
}
