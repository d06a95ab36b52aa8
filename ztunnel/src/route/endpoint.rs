//! One workload of a service, and the way to it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{Health, HealthPolicy, IpFamilies, Mode, Preference, Service, Workload};

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

impl Request<'_> {
    /// Chooses among the usable workloads that match the most preferences, each with the
    /// chance of its capacity.
    pub(super) fn choose(
        &self,
        service: &Service,
        port: u16,
        purpose: Purpose,
    ) -> Option<Endpoint> {
        let usable = || {
            self.view.endpoints(&service.key).filter_map(move |peer| {
                let rank = self.rank(service, peer)?;
                Some((rank, self.usable(service, peer, port, purpose)?))
            })
        };
        let (mut best, mut total) = (0, 0);
        for (rank, endpoint) in usable() {
            if rank > best {
                (best, total) = (rank, 0);
            }
            if rank == best {
                total += u64::from(endpoint.peer.capacity);
            }
        }
        let sample = match purpose {
            Purpose::NetworkGateway => self.sample.gateway,
            Purpose::Application | Purpose::Waypoint => self.sample.endpoint,
        };
        let mut point = scaled(sample, total);
        for (_, endpoint) in usable().filter(|(rank, _)| *rank == best) {
            let capacity = u64::from(endpoint.peer.capacity);
            if point < capacity {
                return Some(endpoint);
            }
            point -= capacity;
        }
        None
    }

    /// How many preferences it matches up to the first that it does not; `None` where
    /// that is not enough.
    fn rank(&self, service: &Service, peer: &Workload) -> Option<usize> {
        let wanted = &service.load_balancing.preferences;
        let matched = || wanted.iter().take_while(|it| self.matches(**it, peer)).count();
        match service.load_balancing.mode {
            Mode::Unspecified | Mode::Passthrough => Some(0),
            Mode::Failover => Some(matched()),
            Mode::Strict => Some(matched()).filter(|rank| *rank == wanted.len()),
        }
    }

    fn matches(&self, preference: Preference, peer: &Workload) -> bool {
        let own = self.source;
        match preference {
            Preference::Region => own.locality.region == peer.locality.region,
            Preference::Zone => own.locality.zone == peer.locality.zone,
            Preference::Subzone => own.locality.subzone == peer.locality.subzone,
            Preference::Node => own.node == peer.node,
            Preference::Cluster => own.cluster == peer.cluster,
            Preference::Network => own.network == peer.network,
        }
    }

    fn usable(
        &self,
        service: &Service,
        peer: &Arc<Workload>,
        port: u16,
        purpose: Purpose,
    ) -> Option<Endpoint> {
        let wanted = match service.load_balancing.health {
            HealthPolicy::OnlyHealthy => peer.health == Health::Healthy,
            HealthPolicy::AllowAll => true,
        };
        if !wanted || peer.capacity == 0 {
            return None;
        }
        let port = target_port(service, peer, port, purpose)?;
        self.locate(peer, self.dialled().ip(), service.ip_families, port, purpose)
    }

    /// The way to a workload of which `wanted` was asked for; `None` when there is none.
    pub(super) fn locate(
        &self,
        peer: &Arc<Workload>,
        wanted: IpAddr,
        families: IpFamilies,
        port: u16,
        purpose: Purpose,
    ) -> Option<Endpoint> {
        let endpoint = |place| Some(Endpoint { peer: Arc::clone(peer), place });
        if purpose != Purpose::NetworkGateway && peer.network != self.source.network {
            return if peer.network_gateway.is_some() { endpoint(None) } else { None };
        }
        if let Some(ip) = address(peer, wanted, families) {
            return endpoint(Some(Place::Address((ip, port).into())));
        }
        let hostname = Some(&peer.hostname).filter(|name| !name.is_empty())?;
        endpoint(Some(Place::Resolve { hostname: Arc::clone(hostname), port }))
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
