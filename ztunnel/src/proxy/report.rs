//! What the proxies tell about their connections.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::{Identity, Network, View, Workload};
use netns::original_dst;
use tokio::net::TcpStream;

use super::admission::Known;
use super::headers::Claims;
use super::pod::PodShared;
use super::refusal::Refusal;
use crate::hbone::PumpError;
use crate::telemetry::{
    self, ConnectionOpen, Direction, Endpoint, Failure, Reporter, ResponseFlags, Security,
};

/// An address as applications know it.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// One end about which nothing is known but its address.
pub(super) fn stranger(addr: SocketAddr) -> Endpoint {
    Endpoint { addr, workload: None, identity: None }
}

/// The client of an inbound connection. An address alone proves nothing, so a workload
/// is named only if the identity fits, or if there is no identity at all.
pub(super) fn client(
    view: Option<&View>,
    network: &Network,
    addr: SocketAddr,
    identity: Option<&Identity>,
) -> Endpoint {
    let workload = view
        .and_then(|view| view.by_address(network, addr.ip()))
        .filter(|workload| identity.is_none_or(|identity| *identity == workload.identity))
        .cloned();
    Endpoint { addr, workload, identity: identity.cloned() }
}

/// The client of a connection that came through a gateway, as it calls itself. Who it is
/// was proved.
pub(super) fn claimed(claims: Claims, gateway: SocketAddr, identity: &Identity) -> Endpoint {
    let Claims { client, workload } = claims;
    let addr = client.map_or(gateway, canonical);
    Endpoint { addr, workload: Some(workload), identity: Some(identity.clone()) }
}

/// The little that is known of a connection that nobody has looked at.
pub(super) fn shed(
    pod: &PodShared,
    direction: Direction,
    tcp: &TcpStream,
    peer: SocketAddr,
) -> ConnectionOpen {
    let peer = canonical(peer);
    let dst = original_dst(tcp).map(|dst| dst.0).or_else(|_| tcp.local_addr());
    let dst = dst.map_or(peer, canonical);
    match direction {
        Direction::Inbound => inbound(pod, None, stranger(peer), dst),
        Direction::Outbound => outbound(pod, None, peer, stranger(dst)),
    }
}

/// The facts of a connection that an application of this pod opens.
pub(super) fn outbound(
    pod: &PodShared,
    source: Option<&Arc<Workload>>,
    client: SocketAddr,
    dst: Endpoint,
) -> ConnectionOpen {
    ConnectionOpen {
        reporter: Reporter::Source,
        direction: Direction::Outbound,
        src: Endpoint { addr: client, workload: source.cloned(), identity: pod.identity.known() },
        dialled: dst.addr,
        dst,
        service: None,
        hop: None,
        security: Security::Plain,
    }
}

/// The facts of a connection toward this pod.
pub(super) fn inbound(
    pod: &PodShared,
    known: Option<&Known>,
    src: Endpoint,
    dst: SocketAddr,
) -> ConnectionOpen {
    let security = if src.identity.is_some() { Security::MutualTls } else { Security::Plain };
    ConnectionOpen {
        reporter: Reporter::Destination,
        direction: Direction::Inbound,
        src,
        dst: Endpoint {
            addr: dst,
            workload: known.map(|(_, workload)| Arc::clone(workload)),
            identity: pod.identity.known(),
        },
        service: None,
        dialled: dst,
        hop: None,
        security,
    }
}

/// Reports a refusal.
pub(super) fn refused(pod: &PodShared, connection: ConnectionOpen, refusal: &Refusal) {
    pod.context.telemetry.refused(&telemetry::Refusal {
        connection,
        reason: refusal.name(),
        failure: refusal.failure(),
    });
}

/// A failure that has a code of its own or none.
pub(super) fn failure(flags: ResponseFlags, error: &impl std::fmt::Display) -> Failure {
    Failure { flags, text: error.to_string() }
}

/// A tunnelled connection that did not end well.
pub(super) fn torn(error: &PumpError) -> Failure {
    let flags = match error {
        PumpError::Torn(_) => ResponseFlags::Torn,
        PumpError::Application(_) | PumpError::Tunnel(_) => ResponseFlags::None,
    };
    failure(flags, error)
}
