//! Where a peer's request leads: into this pod, and nowhere else. Pure.
//!
//! ```text
//! asked for                        and the pod                     dialled in the pod
//! ip:port, the pod's own           has no application tunnel ────► its address, that port
//! ip:port, of others               is their waypoint or gateway ─► its address, that port
//! hostname:port, of a service      is behind the service ────────► its address, target port
//!                                  is its waypoint or gateway ───► its address, that port
//! any of these                     has an application tunnel ────► that tunnel's port
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh::{Gateway, GatewayDestination, Service, TunnelledProtocol, View, Workload};

use super::super::context::AppTunnel;
use super::super::refusal::Refusal;
use super::super::target::{Asked, addressable, own_port};

/// Who is asked, and by whom.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Arrival<'a> {
    pub(in crate::proxy) view: &'a View,
    /// This pod.
    pub(in crate::proxy) own: &'a Workload,
    /// The address of the pod that was dialled.
    pub(in crate::proxy) local: IpAddr,
    /// Of the client, as its certificate proves.
    pub(in crate::proxy) client_namespace: &'a str,
    pub(in crate::proxy) app_tunnel: AppTunnel,
}

/// What is done for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Destination {
    /// The pod at the port where its application listens, which policies are about.
    pub(in crate::proxy) app: SocketAddr,
    /// The service that was asked for.
    pub(in crate::proxy) service: Option<Arc<Service>>,
    pub(in crate::proxy) way: Way,
}

/// How the application is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Way {
    /// As if the client had dialled it.
    Direct,
    /// At this address of the pod, with a preface that tells who dials whom.
    Prefaced { at: SocketAddr, meant: SocketAddr },
}

/// What was asked for, as far as the view knows it.
struct Found {
    port: u16,
    service: Option<Arc<Service>>,
}

impl Arrival<'_> {
    /// Decides.
    pub(in crate::proxy) fn destination(&self, asked: &Asked) -> Result<Destination, Refusal> {
        let local = self.local.to_canonical();
        let Found { port, service } = match asked {
            Asked::Address(addr) => self.address(*addr, local)?,
            Asked::Name { host, port } => self.name(host, *port)?,
        };
        let tunnel = self.own.application_tunnel;
        let port = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
        let app = SocketAddr::new(local, port);
        if !addressable(local) || port == 0 {
            return Err(Refusal::ForeignTarget(app));
        }
        own_port(port)?;
        let prefaced = tunnel.is_some_and(|it| it.protocol == TunnelledProtocol::Proxy);
        if !prefaced {
            return Ok(Destination { app, service, way: Way::Direct });
        }
        let meant = match asked {
            Asked::Address(addr) => *addr,
            Asked::Name { host, port } => {
                let vip = service.as_deref().and_then(|service| self.vip(service));
                let vip = vip.ok_or_else(|| Refusal::Unserved(format!("{host} has no address")))?;
                SocketAddr::new(vip, *port)
            }
        };
        let at = match self.app_tunnel {
            AppTunnel::Loopback => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            AppTunnel::PodAddress => app,
        };
        Ok(Destination { app, service, way: Way::Prefaced { at, meant } })
    }

    fn address(&self, asked: SocketAddr, local: IpAddr) -> Result<Found, Refusal> {
        let port = asked.port();
        if asked.ip() == local {
            return Ok(Found { port, service: None });
        }
        let network = &self.own.network;
        let service = self.view.service_at(self.client_namespace, network, asked.ip());
        let ours = match service {
            Some(service) => self.stands_before(service),
            None => {
                let workload = self.view.by_address(network, asked.ip());
                workload.is_some_and(|workload| self.is_stop_of(workload))
            }
        };
        if ours || self.own.application_tunnel.is_some() {
            return Ok(Found { port, service: service.cloned() });
        }
        Err(Refusal::ForeignTarget(asked))
    }

    /// Hostnames are unique within a namespace. The service whose workload we are comes
    /// first, then one that we stand before, then the first by name.
    fn name(&self, host: &str, port: u16) -> Result<Found, Refusal> {
        let takes_all = self.own.application_tunnel.is_some();
        let visible = self.view.services_named(host);
        let ours = visible.filter(|it| it.visible_to(self.client_namespace)).filter_map(|it| {
            let rank = match () {
                () if self.own.membership(&it.key).is_some() => 0,
                () if self.stands_before(it) => 1,
                () if takes_all => 2,
                () => return None,
            };
            Some((rank, it))
        });
        let (rank, service) = ours
            .min_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.key.cmp(&other.key)))
            .ok_or_else(|| Refusal::Unserved(format!("{host} is no service of this pod")))?;
        let missing = || Refusal::Unserved(format!("{host} has no port {port}"));
        let common = service.port(port);
        let target = match rank {
            0 => {
                let own = self.own.membership(&service.key).and_then(|it| it.target_port(port));
                let common = || common.map(|it| it.target_port).filter(|target| *target != 0);
                let tunnel = || self.own.application_tunnel?.port;
                own.or_else(common).or_else(tunnel).ok_or_else(missing)?
            }
            _ => common.map(|it| it.service_port).ok_or_else(missing)?,
        };
        Ok(Found { port: target, service: Some(Arc::clone(service)) })
    }

    /// Is this pod the waypoint of the service, or the way into its network?
    fn stands_before(&self, service: &Service) -> bool {
        let namespace = service.key.namespace();
        let weighted = service.weighted_waypoints.iter().map(|(gateway, _)| gateway);
        let mut waypoints = service.waypoint.iter().chain(weighted);
        waypoints.any(|gateway| self.is(gateway, namespace))
            || self.view.endpoints(&service.key).any(|endpoint| {
                let gateway = endpoint.network_gateway.as_deref();
                gateway.is_some_and(|gateway| self.is(gateway, &endpoint.namespace))
            })
    }

    fn is_stop_of(&self, workload: &Workload) -> bool {
        let stops = [&workload.waypoint, &workload.network_gateway];
        stops.into_iter().flatten().any(|gateway| self.is(gateway, &workload.namespace))
    }

    /// Is this pod one of that gateway's workloads? `namespace` is that of the resource
    /// which names it.
    fn is(&self, gateway: &Gateway, namespace: &str) -> bool {
        let (network, ip) = match &gateway.destination {
            GatewayDestination::Hostname(key) => return self.own.membership(key).is_some(),
            GatewayDestination::Address { network, ip } => (network, ip.to_canonical()),
        };
        if *network == self.own.network && self.own.addresses.contains(&ip) {
            return true;
        }
        let service = self.view.service_at(namespace, network, ip);
        service.is_some_and(|service| self.own.membership(&service.key).is_some())
    }

    /// The address that stands for a service: in our own network and of IPv4 if it has
    /// such a one.
    fn vip(&self, service: &Service) -> Option<IpAddr> {
        let single =
            |it: &&mesh::ServiceAddress| it.net.prefix() == if it.net.is_ipv4() { 32 } else { 128 };
        let best = service.addresses.iter().filter(single);
        let best = best.min_by_key(|it| (it.network != self.own.network, it.net.is_ipv6()));
        best.map(|it| it.net.ip())
    }
}

/// The service by which a client that asked for the pod came: the one that it `said`, if
/// the pod is behind that, else the first that leads to the port. For those who watch.
pub(super) fn guessed(
    view: &View,
    own: &Workload,
    said: Option<&str>,
    port: u16,
) -> Option<Arc<Service>> {
    let known = || own.services.iter().filter_map(|it| Some((it, view.service(&it.service)?)));
    let named = said.and_then(|host| known().find(|(_, it)| it.key.hostname() == host));
    let leading = known().filter(|(membership, service)| {
        service
            .ports
            .iter()
            .any(|it| membership.target_port(it.service_port).unwrap_or(it.target_port) == port)
    });
    let found = named.or_else(|| leading.min_by(|(_, a), (_, b)| a.key.cmp(&b.key)));
    found.map(|(_, service)| Arc::clone(service))
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
