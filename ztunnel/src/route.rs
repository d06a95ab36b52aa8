//! What becomes of a connection that a pod opens. Pure: random numbers are passed in.
//!
//! ```text
//! (source, OrigDst, view) ──► service here? ──► waypoint ─────────────────► Tunnel to it
//!                       │           └─────────► an endpoint ──┐
//!                       └───► workload here? ─► waypoint      ▼
//!                                   └─────────────────► other network ────► Tunnel in a tunnel
//!                                                       in the mesh ──────► Tunnel
//!                                                       not, and surely ──► Passthrough
//!                                                       anything else ────► Refuse
//! ```
//!
//! Whoever calls has waited for a complete view and for the source workload to be in it:
//! without either there is no decision, and the connection is refused.

mod decide;
mod endpoint;
mod gateway;
mod place;
mod search;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{Identity, Service, ServiceKey, Uid, View, Workload};
use netns::OrigDst;

pub use place::{Authority, Place};

/// A connection to be decided about.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who opens it.
    pub source: &'a Workload,
    /// The address that the pod has in truth: what the view says may be of an earlier pod
    /// of the same name, whose addresses others may have by now.
    pub client: IpAddr,
    /// What was dialled.
    pub dst: OrigDst,
    /// What is known.
    pub view: &'a View,
    /// Chance.
    pub sample: Sample,
}

/// Random numbers, evenly spread over all 64 bits. Equal ones give equal decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Which of several waypoints.
    pub waypoint: u64,
    /// Which workload of a service or waypoint.
    pub endpoint: u64,
    /// Which workload of a network's gateway.
    pub gateway: u64,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through a tunnel to the peer that serves the destination.
    Tunnel(Tunnel),
    /// Unchanged.
    Passthrough(Passthrough),
    /// Not at all.
    Refuse(Refusal),
}

/// Where a tunnel goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Who is at its end: the destination, or a waypoint.
    pub peer: Arc<Workload>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// What is asked for, of every hop.
    pub authority: Authority,
    /// Who may answer at its end.
    pub expected: Vec<Identity>,
    /// How to get there.
    pub reach: Reach,
}

/// How the end of a tunnel is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Dialled.
    Direct(Place),
    /// Inside a tunnel to the gateway of its network.
    Through(GatewayHop),
}

/// The gateway of another network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayHop {
    /// Who it is.
    pub peer: Arc<Workload>,
    /// Where it listens.
    pub place: Place,
    /// Who may answer there.
    pub expected: Vec<Identity>,
}

/// Where a connection goes on in clear text, and why that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// What was dialled, or the endpoint that was chosen.
    pub dst: Place,
    /// The destination, where it is a workload.
    pub peer: Option<Arc<Workload>>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// Why not through a tunnel.
    pub reason: PassthroughReason,
}

/// See [`Passthrough`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassthroughReason {
    /// A complete view does not know the destination: it is outside the mesh.
    UnknownDestination,
    /// The destination is a workload that does not speak HBONE.
    PlainWorkload,
    /// The service wants its traffic to go where it was addressed.
    PassthroughService,
    /// The pod dialled itself.
    OwnAddress,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One of ztunnel's in-pod ports, which would lead back to itself.
    #[error("destination is one of the proxy's own ports, which applications must not dial")]
    ProxyPort,
    /// A workload that might want a tunnel: its resource could not be used.
    #[error("what the control plane sent about {0} was rejected: it may want a tunnel")]
    RejectedDestination(Uid),
    /// A service whose traffic might have to go elsewhere: its resource could not be used.
    #[error("what the control plane sent about service {0} was rejected: it may want a tunnel")]
    RejectedService(ServiceKey),
    /// The service does not have the port that was dialled.
    #[error("service {service} has no port {port}")]
    UnknownServicePort {
        /// The service.
        service: ServiceKey,
        /// What was dialled.
        port: u16,
    },
    /// Nobody behind the service can be used.
    #[error("service {0} has no healthy workload that can be reached from here")]
    NoEndpoint(ServiceKey),
    /// A waypoint that the view does not know. Traffic must not go past it.
    #[error("waypoint {0} is not known; does the control plane still name a deleted one?")]
    UnknownWaypoint(String),
    /// No workload of the waypoint can be used.
    #[error("waypoint {0} has no healthy workload that can be reached from here")]
    NoWaypoint(String),
    /// A gateway that the view does not know.
    #[error("network gateway {0} is not known")]
    UnknownNetworkGateway(String),
    /// No workload of the gateway can be used, or the peer's network has none.
    #[error("no gateway leads to {0} in its network")]
    NoNetworkGateway(Uid),
    /// Addresses of another network mean something else here: only services are known by
    /// name.
    #[error("{0} is in another network and was not dialled as a service")]
    NotServiceAddressed(Uid),
}

type Decision = Result<Route, Refusal>;

/// Decides.
#[must_use]
pub fn route(request: &Request<'_>) -> Route {
    request.decide().unwrap_or_else(Route::Refuse)
}

impl Refusal {
    /// Label of the counter.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ProxyPort => "proxy_port",
            Self::RejectedDestination(_) => "rejected_destination",
            Self::RejectedService(_) => "rejected_service",
            Self::UnknownServicePort { .. } => "unknown_service_port",
            Self::NoEndpoint(_) => "no_endpoint",
            Self::UnknownWaypoint(_) => "unknown_waypoint",
            Self::NoWaypoint(_) => "no_waypoint",
            Self::UnknownNetworkGateway(_) => "unknown_network_gateway",
            Self::NoNetworkGateway(_) => "no_network_gateway",
            Self::NotServiceAddressed(_) => "not_service_addressed",
        }
    }
}

impl Sample {
    /// Fills it with what `next` gives.
    pub fn draw(mut next: impl FnMut() -> u64) -> Self {
        Self { waypoint: next(), endpoint: next(), gateway: next() }
    }
}

impl Passthrough {
    /// The same, with the name in [`Passthrough::dst`] replaced by what it means.
    ///
    /// # Errors
    /// That address may not be dialled in clear text.
    pub fn resolved(self, ip: IpAddr, request: &Request<'_>) -> Result<Self, Refusal> {
        let to = Self { dst: self.dst.resolved(ip), ..self };
        request.may_be_clear(&to.dst)?;
        Ok(to)
    }
}

impl Tunnel {
    /// What is dialled: the end of the tunnel, or the gateway on the way there.
    #[must_use]
    pub fn place(&self) -> &Place {
        match &self.reach {
            Reach::Direct(place) => place,
            Reach::Through(gateway) => &gateway.place,
        }
    }

    /// The same, with the name in [`Tunnel::place`] replaced by what it means.
    #[must_use]
    pub fn resolved(self, ip: IpAddr) -> Self {
        let authority = self.authority.resolved(ip);
        let reach = match self.reach {
            Reach::Direct(place) => Reach::Direct(place.resolved(ip)),
            Reach::Through(hop) => {
                Reach::Through(GatewayHop { place: hop.place.resolved(ip), ..hop })
            }
        };
        Self { authority, reach, ..self }
    }
}
