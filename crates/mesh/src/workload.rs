//! One workload, parsed.

mod addresses;
mod parse;

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::places::Placed;
use crate::policy::PolicyKey;
use crate::service::ServiceKey;

pub use addresses::Addresses;
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
/// There may be 100,000: what differs between pods of one owner is here, the rest is
/// [`Shared`], which many point to. A workload is read and changed as if all of it were
/// its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    uid: Uid,
    /// Where it is not the last part of the uid, as it is for pods.
    name: Option<Box<str>>,
    /// Its addresses in its network.
    pub addresses: Addresses,
    /// Node name.
    pub node: Arc<str>,
    /// Where its node is: pods of one owner are spread over zones.
    pub locality: Arc<Locality>,
    /// Whether services should send traffic to it.
    pub health: Health,
    shared: Arc<Shared>,
}

/// What workloads have in common that were made from one template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shared {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Trust domain, namespace and service account.
    pub identity: Identity,
    /// Its network.
    pub network: Network,
    /// A name to be resolved where there is no address; empty where there is none.
    pub hostname: Arc<str>,
    /// How it is reached.
    pub protocol: Protocol,
    /// It speaks HBONE itself, without a ztunnel.
    pub native_tunnel: bool,
    /// Shares its node's addresses; never found by them.
    pub host_network: bool,
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
        let mut workload = Self {
            uid: uid.into(),
            name: None,
            addresses: Addresses::default(),
            node: "".into(),
            locality: Arc::new(Locality::default()),
            health: Health::default(),
            shared: Arc::new(Shared::new(namespace, identity)),
        };
        workload.rename(name);
        workload
    }

    /// Key of the resource.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// Pod name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| last_part(&self.uid))
    }

    /// Do they differ in names, addresses, node and health only? Of two that are not in one
    /// view the answer may be no although it could be yes.
    #[must_use]
    pub fn is_sibling_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && Arc::ptr_eq(&self.locality, &other.locality)
    }

    /// Does its uid say its namespace and name? Then both are found by the uid's end.
    pub(crate) fn is_named_by_uid(&self) -> bool {
        let end = named_end(&self.uid).split_once('/');
        self.name.is_none() && end.is_some_and(|(namespace, _)| *namespace == *self.namespace)
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: &str) {
        self.name = (name != last_part(&self.uid)).then(|| name.into());
    }

    /// The same with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// What it has in common with others, to be replaced by an equal one.
    pub(crate) fn shared_mut(&mut self) -> &mut Arc<Shared> {
        &mut self.shared
    }
}

impl Deref for Workload {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Others keep what they have in common.
impl DerefMut for Workload {
    fn deref_mut(&mut self) -> &mut Shared {
        Arc::make_mut(&mut self.shared)
    }
}

impl Shared {
    fn new(namespace: &str, identity: Identity) -> Self {
        let empty = Arc::<str>::from("");
        Self {
            namespace: namespace.into(),
            identity,
            network: Arc::clone(&empty),
            hostname: Arc::clone(&empty),
            protocol: Protocol::Plain,
            native_tunnel: false,
            host_network: false,
            kind: WorkloadKind::default(),
            capacity: 1,
            application_tunnel: None,
            waypoint: None,
            network_gateway: None,
            services: Arc::default(),
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

/// The last two parts.
pub(crate) fn named_end(uid: &str) -> &str {
    let before = uid.len() - last_part(uid).len();
    let namespace = last_part(uid[..before].strip_suffix('/').unwrap_or_default());
    &uid[before.saturating_sub(namespace.len() + 1)..]
}

/// The uid of a pod is `cluster//Pod/namespace/name`.
fn last_part(uid: &str) -> &str {
    uid.rsplit('/').next().unwrap_or(uid)
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

    fn workload(uid: &str, name: &str) -> Workload {
        Workload::new(uid, "shop", name, Identity::new("", "shop", "cart").unwrap())
    }

    #[test]
    fn a_workload_is_small() {
        assert!(size_of::<Workload>() <= 112, "{} bytes", size_of::<Workload>());
    }

    #[test]
    fn a_name_is_kept_only_where_the_uid_does_not_end_with_it() {
        let pod = workload("Kubernetes//Pod/shop/cart-1", "cart-1");
        assert_eq!((pod.name(), pod.name.as_deref()), ("cart-1", None));
        for (uid, name) in [("u", "cart"), ("c//Pod/shop/cart-1", "1"), ("u", ""), ("x/", "x")] {
            assert_eq!(workload(uid, name).name(), name, "{uid}");
        }
        let other = pod.clone().with(|it| it.rename("cart-2"));
        assert_eq!(other.name(), "cart-2");
        assert_eq!(other.with(|it| it.rename("cart-1")), pod);
    }

    #[test]
    fn the_end_of_a_uid_names_a_pod() {
        for (uid, end) in [
            ("c//Pod/shop/cart-1", "shop/cart-1"),
            ("shop/cart-1", "shop/cart-1"),
            ("cart-1", "cart-1"),
            ("/x", "/x"),
            ("a//", "/"),
            ("", ""),
        ] {
            assert_eq!(named_end(uid), end, "{uid}");
        }
        assert!(workload("c//Pod/shop/cart-1", "cart-1").is_named_by_uid());
        for (uid, name) in [("c//Pod/bank/a", "a"), ("c//Pod/shop/a", "b"), ("a", "a")] {
            assert!(!workload(uid, name).is_named_by_uid(), "{uid} {name}");
        }
    }

    #[test]
    fn a_change_does_not_reach_those_that_had_it_in_common() {
        let first = workload("1", "a");
        let second = first.clone().with(|it| it.owner = "b".into());
        assert_eq!((&*first.owner, &*second.owner), ("", "b"));
    }
}
