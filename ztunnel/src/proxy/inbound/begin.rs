//! What happens to a request before its bytes are carried.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh::{Network, Service, View};
use tokio::time::timeout;

use super::super::admission::Known;
use super::super::app_socket::AppSocket;
use super::super::limits::Place;
use super::super::pod::PodShared;
use super::super::refusal::Refusal;
use super::super::report::{claimed, client, failure, inbound, refused, stranger};
use super::super::roster::Seat;
use super::super::splice::write_all;
use super::super::target::{Asked, asked};
use super::super::{CONNECT_DEADLINE, headers};
use super::Peer;
use super::destination::{Arrival, Destination, Way, guessed};
use super::preface::preface;
use crate::hbone::{Incoming, TunnelStream};
use crate::telemetry::{ConnectionGuard, ConnectionOpen, Endpoint, Failure, Hop, ResponseFlags};

/// An admitted stream, while it is open.
pub(super) struct Open {
    pub(super) app: AppSocket,
    pub(super) stream: TunnelStream,
    pub(super) guard: ConnectionGuard,
    pub(super) place: Place,
    pub(super) seat: Seat,
}

pub(super) async fn begin(
    pod: Arc<PodShared>,
    worker: usize,
    peer: Arc<Peer>,
    incoming: Incoming,
) -> Option<Open> {
    let (pod, peer) = (&*pod, &*peer);
    let admitted = match admit(pod, worker, peer, &incoming).await {
        Ok(admitted) => admitted,
        Err((dst, refusal)) => {
            let connection = match pod.judged(&refusal) {
                Some(known) => full(pod, &known, (dst, None), peer, &incoming),
                None => bare(pod, dst, peer, &incoming),
            };
            refused(pod, connection, &refusal);
            incoming.refuse(refusal.status());
            return None;
        }
    };
    let Admitted { place, seat, known, to } = admitted;
    let connection = full(pod, &known, (to.app, to.service.clone()), peer, &incoming);
    let guard = pod.context.telemetry.open(connection);
    match connect(pod, peer, &to, &known, incoming).await {
        Ok((app, stream)) => Some(Open { app, stream, guard, place, seat }),
        Err(failure) => {
            guard.close(Err(failure));
            None
        }
    }
}

/// The facts of a request that was found to be for this pod.
fn full(
    pod: &PodShared,
    known: &Known,
    (app, service): (SocketAddr, Option<Arc<Service>>),
    peer: &Peer,
    incoming: &Incoming,
) -> ConnectionOpen {
    let (view, own) = known;
    let src = source(view, &own.network, peer, incoming);
    let said = headers::service_named(incoming.headers());
    let service = service.or_else(|| guessed(view, own, said, app.port()));
    ConnectionOpen { service, ..facts(pod, Some(known), src, app, peer, incoming) }
}

/// Those of one that may have been meant for anybody.
fn bare(pod: &PodShared, dst: SocketAddr, peer: &Peer, incoming: &Incoming) -> ConnectionOpen {
    let view = pod.context.view.current();
    let network = &pod.context.settings.network;
    let src = client(view.as_deref(), network, peer.addr, Some(&peer.identity));
    facts(pod, None, src, dst, peer, incoming)
}

fn facts(
    pod: &PodShared,
    known: Option<&Known>,
    src: Endpoint,
    dst: SocketAddr,
    peer: &Peer,
    incoming: &Incoming,
) -> ConnectionOpen {
    // What cannot be read does not go into logs; the refusal tells of it.
    let asked = asked(incoming.authority()).ok();
    let hop = |asked: &Asked| Hop { peer: peer.local, target: asked.to_string().into() };
    let dialled = match &asked {
        Some(Asked::Address(addr)) => *addr,
        Some(Asked::Name { .. }) | None => dst,
    };
    ConnectionOpen { hop: asked.as_ref().map(hop), dialled, ..inbound(pod, known, src, dst) }
}

/// Who asks, for those who watch.
fn source(view: &View, network: &Network, peer: &Peer, incoming: &Incoming) -> Endpoint {
    match headers::claims(incoming.headers(), network, &peer.identity) {
        Ok(None) => return client(Some(view), network, peer.addr, Some(&peer.identity)),
        Ok(Some(claims)) => return claimed(claims, peer.addr, &peer.identity),
        Err(error) => {
            tracing::debug!(peer = %peer.identity, %error, "what a gateway passed on is no use");
        }
    }
    Endpoint { identity: Some(peer.identity.clone()), ..stranger(peer.addr) }
}

/// What an admitted request has got.
struct Admitted {
    place: Place,
    seat: Seat,
    known: Known,
    to: Destination,
}

/// Is it for this pod, and is it allowed? A refusal comes with the destination, as far
/// as it is known.
async fn admit(
    pod: &PodShared,
    worker: usize,
    peer: &Peer,
    incoming: &Incoming,
) -> Result<Admitted, (SocketAddr, Refusal)> {
    let local = peer.local;
    let asked = asked(incoming.authority()).map_err(|refusal| (local, refusal))?;
    let dst = match &asked {
        Asked::Address(addr) => *addr,
        Asked::Name { port, .. } => SocketAddr::new(local.ip(), *port),
    };
    let place = pod.inbound.take().map_err(|full| (dst, full.into()))?;
    let known = pod.known().await.map_err(|refusal| (dst, refusal))?;
    let to = destination(pod, peer, &known, &asked).map_err(|refusal| (dst, refusal))?;
    let identity = Some(peer.identity.clone());
    let connection = mesh::Connection { source: peer.addr, identity, destination: to.app };
    let seat = pod.roster.enter(worker, connection.clone());
    let known = pod.admit(&connection).await.map_err(|refusal| (to.app, refusal))?;
    Ok(Admitted { place, seat, known, to })
}

fn destination(
    pod: &PodShared,
    peer: &Peer,
    (view, own): &Known,
    asked: &Asked,
) -> Result<Destination, Refusal> {
    let arrival = Arrival {
        view,
        own,
        local: peer.local.ip(),
        client_namespace: peer.identity.namespace(),
        app_tunnel: pod.context.settings.app_tunnel,
    };
    let to = arrival.destination(asked)?;
    pod.open_ports.check(to.app.port())?;
    Ok(to)
}

/// Reaches the application first, and only then says yes.
async fn connect(
    pod: &PodShared,
    peer: &Peer,
    to: &Destination,
    (_, own): &Known,
    incoming: Incoming,
) -> Result<(AppSocket, TunnelStream), Failure> {
    let app = match reach(pod, peer, to).await {
        Ok(app) => app,
        Err(failure) => {
            incoming.refuse(StatusCode::SERVICE_UNAVAILABLE);
            return Err(failure);
        }
    };
    let stream = incoming
        .accept(headers::response(own, pod.context.settings.response_baggage))
        .map_err(|error| failure(ResponseFlags::None, &error))?;
    Ok((app, stream))
}

async fn reach(pod: &PodShared, peer: &Peer, to: &Destination) -> Result<AppSocket, Failure> {
    let dial = async |client, at| {
        let dialled = pod.dial_app(client, at).await;
        dialled.map_err(|error| failure(ResponseFlags::Connect, &error))
    };
    let (at, meant) = match to.way {
        Way::Direct => return dial(Some(peer.addr.ip()), to.app).await,
        Way::Prefaced { at, meant } => (at, meant),
    };
    // Who dials loopback comes from there.
    let client = (!at.ip().is_loopback()).then_some(peer.addr.ip());
    let app = dial(client, at).await?;
    let preface = preface(peer.addr, meant, &peer.identity);
    match timeout(CONNECT_DEADLINE, write_all(&app, &preface)).await {
        Ok(Ok(())) => Ok(app),
        Ok(Err(error)) => Err(failure(ResponseFlags::Connect, &error)),
        Err(error) => Err(failure(ResponseFlags::Connect, &error)),
    }
}
