//! Tunnels of peers (port 15008).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use mesh::{Identity, Network, View};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::Arrival;
use super::admission::Known;
use super::app_socket::AppSocket;
use super::limits::{HandshakePlace, Place};
use super::pod::{Life, PodShared};
use super::refusal::Refusal;
use super::report::{canonical, claimed, client, failure, inbound, refused, stranger};
use super::roster::{Offence, Seat};
use super::target::target;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use crate::hbone::{Flow, Incoming, PumpError, ServerTunnel, TunnelStream, pump};
use crate::telemetry::{ConnectionGuard, Endpoint, Failure, ResponseFlags, Step};
use crate::tls::{self, Watched};

/// Who is at the other end of a tunnel, and at which of our addresses it arrived.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    addr: SocketAddr,
    identity: Identity,
    local: SocketAddr,
}

/// One accepted connection, to its end.
pub(super) async fn serve(pod: Arc<PodShared>, life: Life, Arrival { tcp, peer, worker }: Arrival) {
    let addr = canonical(peer);
    let Ok(local) = tcp.local_addr().map(canonical) else {
        return;
    };
    // Boxed: a handshake needs much that a tunnel does not.
    match Box::pin(handshake(&pod, tcp, addr)).await {
        Ok((tunnel, identity, place)) => {
            let peer = Peer { addr, identity, local };
            Box::pin(requests(pod, life, worker, tunnel, peer)).await;
            drop(place);
        }
        Err(refusal) => refused(&pod, inbound(&pod, None, stranger(addr), local, None), &refusal),
    }
}

type Tunnel = ServerTunnel<Watched<tls::Stream<TcpStream>>>;

async fn handshake(
    pod: &PodShared,
    tcp: TcpStream,
    addr: SocketAddr,
) -> Result<(Tunnel, Identity, Place), Refusal> {
    let _handshake = match queue(pod, &tcp, addr) {
        Ok(place) => place,
        Err(refusal) => {
            // Reset, so that nothing of a shed connection stays behind.
            drop(AppSocket::new(tcp));
            return Err(refusal);
        }
    };
    let certified = timeout(KNOWLEDGE_WAIT, pod.lease.certificate())
        .await
        .map_err(|_| Refusal::NoCertificate("the CA did not answer in time".to_owned()))?
        .map_err(|error| Refusal::NoCertificate(error.to_string()))?;
    let begun = Instant::now();
    let unproved = |error: &dyn std::fmt::Display| Refusal::Handshake(error.to_string());
    let (stream, peer) = tls::accept(certified.credentials(), tcp, HANDSHAKE_DEADLINE)
        .await
        .map_err(|error| match error.is_revoked() {
            true => Refusal::Revoked(error.to_string()),
            false => unproved(&error),
        })?;
    let identity = peer.identity.clone();
    let settings = &pod.context.settings.hbone;
    let tunnel = ServerTunnel::accept(peer.watch(stream), settings, HANDSHAKE_DEADLINE)
        .await
        .map_err(|error| unproved(&error))?;
    pod.context.telemetry.took(Step::HandshakeServer, begun.elapsed());
    Ok((tunnel, identity, pod.tunnels.take()?))
}

/// May its handshake begin?
fn queue(pod: &PodShared, tcp: &TcpStream, addr: SocketAddr) -> Result<HandshakePlace, Refusal> {
    if !pod.context.descriptors.allow(tcp) {
        return Err(Refusal::Descriptors);
    }
    Ok(pod.handshakes.take(addr.ip())?)
}

/// Takes requests until the peer goes, or until the pod is closing and the last stream
/// has finished. Streams end with the connection, but for what their application still
/// has to read.
async fn requests(pod: Arc<PodShared>, life: Life, worker: usize, mut tunnel: Tunnel, peer: Peer) {
    let peer = Arc::new(peer);
    let mut draining = false;
    loop {
        tokio::select! {
            next = tunnel.next() => match next {
                Ok(Some(incoming)) => {
                    let peer = Arc::clone(&peer);
                    let stream = stream(Arc::clone(&pod), worker, peer, incoming);
                    life.spawn(pod.worker(worker), stream);
                }
                Ok(None) => return,
                Err(error) => {
                    return tracing::debug!(pod = %pod.name(), peer = %peer.identity, %error,
                        "tunnel connection ended");
                }
            },
            () = life.closing.cancelled(), if !draining => {
                draining = true;
                tunnel.drain();
            }
        }
    }
}

/// One request, to the end of its stream.
pub(super) async fn stream(
    pod: Arc<PodShared>,
    worker: usize,
    peer: Arc<Peer>,
    incoming: Incoming,
) {
    // Boxed: what is needed to begin must not be kept while bytes are carried.
    let Some(open) = Box::pin(begin(&pod, worker, &peer, incoming)).await else { return };
    drop(peer);
    let Open { app, stream, guard, place, seat, mut offence } = open;
    let moved = |flow, bytes| match flow {
        Flow::IntoTunnel => guard.add_sent(bytes),
        Flow::OutOfTunnel => guard.add_received(bytes),
    };
    let result = tokio::select! {
        result = pump(&app, stream, moved) => result.map_err(|error| torn(&error)),
        error = app.broken() => Err(torn(&PumpError::Application(error))),
        refusal = offence.committed() => Err(refusal.failure()),
    };
    if result.is_ok() {
        app.finished();
    }
    guard.close(result);
    drop((seat, place));
}

/// An admitted stream, while it is open.
struct Open {
    app: AppSocket,
    stream: TunnelStream,
    guard: ConnectionGuard,
    place: Place,
    seat: Seat,
    offence: Offence,
}

async fn begin(pod: &PodShared, worker: usize, peer: &Peer, incoming: Incoming) -> Option<Open> {
    let Admitted { place, seat, offence, known, dst } =
        match admit(pod, worker, peer, &incoming).await {
            Ok(admitted) => admitted,
            Err((dst, refusal)) => {
                let view = pod.context.view.current();
                let network = &pod.context.settings.network;
                let src = client(view.as_deref(), network, peer.addr, Some(&peer.identity));
                refused(pod, inbound(pod, None, src, dst, Some(peer.local)), &refusal);
                incoming.refuse(refusal.status());
                return None;
            }
        };
    let (view, workload) = &known;
    let src = source(view, &workload.network, peer, &incoming);
    let facts = inbound(pod, Some(&known), src, dst, Some(peer.local));
    let guard = pod.context.telemetry.open(facts);
    match connect(pod, peer, dst, &known, incoming).await {
        Ok((app, stream)) => Some(Open { app, stream, guard, place, seat, offence }),
        Err(failure) => {
            guard.close(Err(failure));
            None
        }
    }
}

/// What an admitted request has got.
struct Admitted {
    place: Place,
    seat: Seat,
    offence: Offence,
    known: Known,
    dst: SocketAddr,
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

/// Is it for this pod, and is it allowed? A refusal comes with the destination, as far
/// as it is known.
async fn admit(
    pod: &PodShared,
    worker: usize,
    peer: &Peer,
    incoming: &Incoming,
) -> Result<Admitted, (SocketAddr, Refusal)> {
    let dst =
        target(incoming.authority(), peer.local.ip()).map_err(|refusal| (peer.local, refusal))?;
    let place = pod.inbound.take().map_err(|full| (dst, full.into()))?;
    let identity = Some(peer.identity.clone());
    let connection = mesh::Connection { source: peer.addr, identity, destination: dst };
    let (seat, offence) = pod.roster.inbound(worker, connection.clone());
    let known = pod.admit(&connection).await.map_err(|refusal| (dst, refusal))?;
    Ok(Admitted { place, seat, offence, known, dst })
}

/// Reaches the application first, and only then says yes.
async fn connect(
    pod: &PodShared,
    peer: &Peer,
    dst: SocketAddr,
    (_, workload): &Known,
    incoming: Incoming,
) -> Result<(AppSocket, TunnelStream), Failure> {
    let app = match pod.dialer.dial_app(Some(peer.addr.ip()), dst).await {
        Ok(app) => app,
        Err(error) => {
            incoming.refuse(StatusCode::SERVICE_UNAVAILABLE);
            return Err(failure(ResponseFlags::Connect, &error));
        }
    };
    let stream = incoming
        .accept(headers::response(workload, pod.context.settings.response_baggage))
        .map_err(|error| failure(ResponseFlags::None, &error))?;
    Ok((app, stream))
}

fn torn(error: &PumpError) -> Failure {
    failure(ResponseFlags::None, error)
}
