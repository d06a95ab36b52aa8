//! From the destination to the decision.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::{Identity, Mode, Protocol, Service, Uid, Workload};

use super::endpoint::{Endpoint, Purpose};
use super::{
    Authority, Decision, Passthrough, PassthroughReason, Place, Reach, Refusal, Request, Route,
    Tunnel,
};

impl Request<'_> {
    pub(super) fn decide(&self) -> Decision {
        let dst = self.dialled();
        self.not_to_myself(dst)?;
        let known =
            |reason, peer| Passthrough { dst: Place::Address(dst), peer, service: None, reason };
        let network = &self.source.network;
        let peer = || self.view.by_address(network, dst.ip()).cloned();
        if self.source.addresses.contains(&dst.ip()) && self.client.to_canonical() == dst.ip() {
            return Ok(Route::Passthrough(known(PassthroughReason::OwnAddress, peer())));
        }
        if let Some(service) = self.view.service_at(&self.source.namespace, network, dst.ip()) {
            return self.service_dialled(service);
        }
        match peer() {
            Some(peer) => self.workload_dialled(peer),
            None => self.in_clear(known(PassthroughReason::UnknownDestination, None)),
        }
    }

    /// What was dialled, as the view writes it.
    pub(super) fn dialled(&self) -> SocketAddr {
        SocketAddr::new(self.dst.0.ip().to_canonical(), self.dst.0.port())
    }

    fn service_dialled(&self, service: &Arc<Service>) -> Decision {
        if let Some(waypoint) = self.waypoint_of(service) {
            return self.through_waypoint(waypoint, service.key.namespace(), Some(service));
        }
        let dst = self.dialled();
        if service.load_balancing.mode == Mode::Passthrough {
            // A range may cover pods of the mesh: those are reached as themselves, or who
            // makes such a service could switch their mutual TLS off.
            if let Some(peer) = self.view.by_address(&self.source.network, dst.ip()) {
                return self.workload_dialled(Arc::clone(peer));
            }
            return self.in_clear(Passthrough {
                dst: Place::Address(dst),
                peer: None,
                service: Some(Arc::clone(service)),
                reason: PassthroughReason::PassthroughService,
            });
        }
        let (key, port) = (&service.key, dst.port());
        match self.choose(service, port, Purpose::Application) {
            Some(endpoint) => self.reach_endpoint(endpoint, Some(service)),
            None if service.port(port).is_some() => Err(Refusal::NoEndpoint(key.clone())),
            None => Err(Refusal::UnknownServicePort { service: key.clone(), port }),
        }
    }

    /// A workload that was dialled by its address.
    fn workload_dialled(&self, peer: Arc<Workload>) -> Decision {
        if let Some(waypoint) = &peer.waypoint
            && !self.comes_from(waypoint, &peer.namespace)
        {
            return self.through_waypoint(waypoint, &peer.namespace, None);
        }
        let place = Some(Place::Address(self.dialled()));
        self.reach_endpoint(Endpoint { peer, place }, None)
    }

    fn reach_endpoint(
        &self,
        Endpoint { peer, place }: Endpoint,
        service: Option<&Arc<Service>>,
    ) -> Decision {
        let expected = expected(&peer, service.map(|it| &**it));
        let Some(place) = place else {
            return self.reach_network(peer, expected, service);
        };
        let service = service.cloned();
        match peer.protocol {
            Protocol::Plain => self.in_clear(Passthrough {
                dst: place,
                peer: Some(peer),
                service,
                reason: PassthroughReason::PlainWorkload,
            }),
            Protocol::Hbone => Ok(Route::Tunnel(Tunnel {
                authority: Authority::of(&place),
                expected,
                reach: Reach::Direct(place.with_port(zds::port::INBOUND_HBONE)),
                peer,
                service,
            })),
        }
    }

    fn in_clear(&self, to: Passthrough) -> Decision {
        self.may_be_clear(&to.dst)?;
        Ok(Route::Passthrough(to))
    }

    /// A tunnel is safe, whatever a rejected version would have said; clear text is not.
    pub(super) fn may_be_clear(&self, to: &Place) -> Result<(), Refusal> {
        let chosen = match to {
            Place::Address(addr) => Some(*addr),
            Place::Resolve { .. } => None,
        };
        let dialled = self.dialled();
        for ip in [Some(dialled), chosen].into_iter().flatten().map(|addr| addr.ip()) {
            let network = &self.source.network;
            if let Some(uid) = self.view.rejected_at(network, ip) {
                return Err(Refusal::RejectedDestination(Uid::clone(uid)));
            }
            let client = &self.source.namespace;
            if let Some(key) = self.view.rejected_service_at(client, network, ip) {
                return Err(Refusal::RejectedService(key.clone()));
            }
        }
        chosen.map_or(Ok(()), |addr| self.not_to_myself(addr))
    }

    /// The proxy's ports in this pod lead back here.
    fn not_to_myself(&self, to: SocketAddr) -> Result<(), Refusal> {
        let ip = to.ip();
        let here = self.source.addresses.contains(&ip) || ip.is_loopback() || ip.is_unspecified();
        if here && zds::PROXY_PORTS.contains(&to.port()) {
            return Err(Refusal::ProxyPort);
        }
        Ok(())
    }
}

/// Who may answer for a workload: itself, and whoever the service says.
pub(super) fn expected(peer: &Workload, service: Option<&Service>) -> Vec<Identity> {
    let names = service.map_or(&[][..], |service| &service.subject_alt_names);
    let others = names.iter().filter(|name| **name != peer.identity);
    std::iter::once(&peer.identity).chain(others).cloned().collect()
}
