//! One workload of a service, and the way to it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{IpFamilies, Mode, Preference, Service, Workload};

use super::search::{Candidate, Fit, Search};
use super::{Place, Request};

/// What a workload is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application's traffic.
    Application,
    /// To be the waypoint.
    Waypoint,
    /// To be the way into another network: it is reached from here, whatever its network.
    NetworkGateway,
}

/// A workload, and where it is reached; `None` for the gateway of its network.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) peer: Arc<Workload>,
    pub(super) place: Option<Place>,
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    Address(IpAddr),
    Hostname(&'a Arc<str>),
    Gateway,
}

impl Request<'_> {
    /// Chooses among the usable workloads that match the most preferences, each with the
    /// chance of its capacity.
    pub(super) fn choose(
        &self,
        service: &Service,
        port: u16,
        purpose: Purpose,
    ) -> Option<Endpoint> {
        let sample = match purpose {
            Purpose::NetworkGateway => self.sample.gateway,
            Purpose::Application | Purpose::Waypoint => self.sample.endpoint,
        };
        let chosen = Search::new(self, service, port, purpose).choose(sample);
        chosen.map(|Candidate { peer, way, port, .. }| way.endpoint(peer, port))
    }

    /// `None` for one that gets no traffic, however it is reached.
    pub(super) fn fit(
        &self,
        service: &Service,
        peer: &Workload,
        port: u16,
        purpose: Purpose,
    ) -> Option<Fit> {
        let port = target_port(service, peer, port, purpose).filter(|_| peer.capacity != 0)?;
        Some(Fit { matched: self.matched(service, peer), port })
    }

    /// How many preferences it matches up to the first that it does not, if it is on the
    /// client's node.
    fn matched(&self, service: &Service, peer: &Workload) -> usize {
        let wanted = &service.load_balancing.preferences;
        match service.load_balancing.mode {
            Mode::Unspecified | Mode::Passthrough => 0,
            Mode::Failover | Mode::Strict => {
                wanted.iter().take_while(|it| self.matches(**it, peer)).count()
            }
        }
    }

    fn matches(&self, preference: Preference, peer: &Workload) -> bool {
        let own = self.source;
        match preference {
            Preference::Region => own.locality.region == peer.locality.region,
            Preference::Zone => own.locality.zone == peer.locality.zone,
            Preference::Subzone => own.locality.subzone == peer.locality.subzone,
            // Looked at one by one: siblings differ in it.
            Preference::Node => true,
            Preference::Cluster => own.cluster == peer.cluster,
            Preference::Network => own.network == peer.network,
        }
    }

    /// The way to a workload of which `wanted` was asked for; `None` when there is none.
    pub(super) fn locate(
        &self,
        peer: &Arc<Workload>,
        wanted: IpAddr,
        port: u16,
        purpose: Purpose,
    ) -> Option<Endpoint> {
        let way = self.way(peer, wanted, IpFamilies::Automatic, purpose)?;
        Some(way.endpoint(peer, port))
    }

    pub(super) fn way<'a>(
        &self,
        peer: &'a Workload,
        wanted: IpAddr,
        families: IpFamilies,
        purpose: Purpose,
    ) -> Option<Way<'a>> {
        if purpose != Purpose::NetworkGateway && peer.network != self.source.network {
            return peer.network_gateway.is_some().then_some(Way::Gateway);
        }
        let hostname = || Some(&peer.hostname).filter(|name| !name.is_empty()).map(Way::Hostname);
        address(peer, wanted, families).map(Way::Address).or_else(hostname)
    }
}

impl Way<'_> {
    fn endpoint(self, peer: &Arc<Workload>, port: u16) -> Endpoint {
        let place = match self {
            Self::Address(ip) => Some(Place::Address((ip, port).into())),
            Self::Hostname(name) => Some(Place::Resolve { hostname: Arc::clone(name), port }),
            Self::Gateway => None,
        };
        Endpoint { peer: Arc::clone(peer), place }
    }
}

/// A number below `total`, as evenly as the sample is.
pub(super) fn scaled(sample: u64, total: u64) -> u64 {
    let product = u128::from(sample) * u128::from(total);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// The workload's own port for that, else the service's, else, of a waypoint whose
/// application takes everything in one place, the very one.
fn target_port(service: &Service, peer: &Workload, port: u16, purpose: Purpose) -> Option<u16> {
    let own = || peer.membership(&service.key)?.target_port(port);
    let common = || service.port(port).map(|it| it.target_port).filter(|port| *port != 0);
    let tunnel = || {
        let takes_all = peer.application_tunnel.is_some_and(|it| it.port.is_some());
        (purpose == Purpose::Waypoint && takes_all).then_some(port)
    };
    own().or_else(common).or_else(tunnel)
}

/// The address that was asked for, else one of a family that the service allows, rather of
/// that family.
fn address(peer: &Workload, wanted: IpAddr, families: IpFamilies) -> Option<IpAddr> {
    if peer.addresses.contains(&wanted) {
        return Some(wanted);
    }
    let allowed = || peer.addresses.iter().copied().filter(|ip| families.allow(*ip));
    allowed().find(|ip| ip.is_ipv4() == wanted.is_ipv4()).or_else(|| allowed().next())
}
