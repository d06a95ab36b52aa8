//! Stops on the way: waypoints, and the gateways of other networks.

use std::sync::Arc;

use mesh::{Gateway, GatewayDestination, Identity, Network, Service, Uid, Workload};

use super::decide::expected;
use super::endpoint::{Endpoint, Purpose, scaled};
use super::{Authority, Decision, GatewayHop, Reach, Refusal, Request, Route, Tunnel};

/// What the name of a gateway means.
enum Named<'a> {
    Service(&'a Arc<Service>),
    /// At the address that was named.
    Workload(&'a Arc<Workload>, std::net::IpAddr),
}

/// Why there is no way through a gateway.
enum Missing {
    /// Nobody knows the name.
    Unknown,
    /// Nobody of that name can be used.
    Unusable,
}

/// A gateway's workload.
struct Stop {
    endpoint: Endpoint,
    /// Who may answer there.
    expected: Vec<Identity>,
}

impl Request<'_> {
    /// The waypoint for traffic of a service, if there is one and the traffic does not
    /// come from it: that would go round in circles.
    pub(super) fn waypoint_of<'s>(&self, service: &'s Service) -> Option<&'s Gateway> {
        let weighted = &service.weighted_waypoints;
        let total = weighted.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let namespace = service.key.namespace();
        if total == 0 {
            return service.waypoint.as_ref().filter(|it| !self.comes_from(it, namespace));
        }
        if weighted.iter().any(|(waypoint, _)| self.comes_from(waypoint, namespace)) {
            return None;
        }
        let mut point = scaled(self.sample.waypoint, total);
        let drawn = weighted.iter().find(|(_, weight)| {
            let weight = u64::from(*weight);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        });
        drawn.map(|(waypoint, _)| waypoint)
    }

    /// Is the source, by address and identity, one of that gateway's workloads?
    /// `namespace` is that of the resource which names the gateway.
    pub(super) fn comes_from(&self, gateway: &Gateway, namespace: &str) -> bool {
        let client = self.client.to_canonical();
        let is_source = |it: &Arc<Workload>| {
            it.identity == self.source.identity
                && it.network == self.source.network
                && it.addresses.contains(&client)
        };
        match self.named(gateway, namespace) {
            Some(Named::Service(service)) => self.view.endpoints(&service.key).any(is_source),
            Some(Named::Workload(workload, _)) => is_source(workload),
            None => false,
        }
    }

    pub(super) fn through_waypoint(
        &self,
        waypoint: &Gateway,
        namespace: &str,
        service: Option<&Arc<Service>>,
    ) -> Decision {
        let stop = self.stop(waypoint, namespace, Purpose::Waypoint).map_err(|it| match it {
            Missing::Unknown => Refusal::UnknownWaypoint(waypoint.to_string()),
            Missing::Unusable => Refusal::NoWaypoint(waypoint.to_string()),
        })?;
        let Stop { endpoint: Endpoint { peer, place }, expected } = stop;
        let Some(place) = place else {
            return self.reach_network(peer, expected, service);
        };
        Ok(Route::Tunnel(Tunnel {
            authority: Authority::Address(self.dialled()),
            expected,
            reach: Reach::Direct(place),
            peer,
            service: service.cloned(),
        }))
    }

    /// Into another network, where a service is known by its name only.
    pub(super) fn reach_network(
        &self,
        peer: Arc<Workload>,
        expected: Vec<Identity>,
        service: Option<&Arc<Service>>,
    ) -> Decision {
        let uid = || Uid::clone(peer.uid());
        let service = service.ok_or_else(|| Refusal::NotServiceAddressed(uid()))?;
        let gateway = peer.network_gateway.as_deref();
        let gateway = gateway.ok_or_else(|| Refusal::NoNetworkGateway(uid()))?;
        let stop = self.stop(gateway, &peer.namespace, Purpose::NetworkGateway);
        let stop = stop.map_err(|missing| match missing {
            Missing::Unknown => Refusal::UnknownNetworkGateway(gateway.to_string()),
            Missing::Unusable => Refusal::NoNetworkGateway(uid()),
        })?;
        let place = stop.endpoint.place.ok_or_else(|| Refusal::NoNetworkGateway(uid()))?;
        let hop = GatewayHop { peer: stop.endpoint.peer, place, expected: stop.expected };
        Ok(Route::Tunnel(Tunnel {
            authority: Authority::Name { host: service.key.clone(), port: self.dialled().port() },
            expected,
            reach: Reach::Through(hop),
            peer,
            service: Some(Arc::clone(service)),
        }))
    }

    fn stop(&self, gateway: &Gateway, namespace: &str, purpose: Purpose) -> Result<Stop, Missing> {
        let port = gateway.hbone_port;
        let (endpoint, service) = match self.named(gateway, namespace).ok_or(Missing::Unknown)? {
            Named::Service(service) => (self.choose(service, port, purpose), Some(&**service)),
            Named::Workload(peer, ip) => (self.locate(peer, ip, port, purpose), None),
        };
        let endpoint = endpoint.ok_or(Missing::Unusable)?;
        let expected = expected(&endpoint.peer, service);
        Ok(Stop { endpoint, expected })
    }

    /// An address may be that of a service which only `namespace` can find.
    fn named(&self, gateway: &Gateway, namespace: &str) -> Option<Named<'_>> {
        let (network, ip): (&Network, _) = match &gateway.destination {
            GatewayDestination::Hostname(key) => {
                return self.view.service(key).map(Named::Service);
            }
            GatewayDestination::Address { network, ip } => (network, *ip),
        };
        let service = self.view.service_at(namespace, network, ip).map(Named::Service);
        let workload = || self.view.by_address(network, ip).map(|it| Named::Workload(it, ip));
        service.or_else(workload)
    }
}
