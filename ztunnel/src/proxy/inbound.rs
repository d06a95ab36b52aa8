//! Tunnels of peers (port 15008).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use mesh::{Identity, Network, View};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::Permit;
use super::admission::Known;
use super::app_socket::AppSocket;
use super::pod::{Life, PodShared};
use super::refusal::Refusal;
use super::report::{Counted, canonical, claimed, client, failure, inbound, refused, stranger};
use super::target::target;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use crate::hbone::{Flow, Incoming, PumpError, ServerTunnel, TunnelStream, pump};
use crate::telemetry::{Endpoint, Failure, ResponseFlags, Step};
use crate::tls::{self, Watched};

/// Who is at the other end of a tunnel, and at which of our addresses it arrived.
#[derive(Clone, Debug)]
struct Peer {
    addr: SocketAddr,
    identity: Identity,
    local: SocketAddr,
}

/// One accepted connection, to its end. `permit` is a place among the handshakes.
pub(super) async fn serve(
    pod: Arc<PodShared>,
    life: Life,
    tcp: TcpStream,
    addr: SocketAddr,
    permit: Permit,
) {
    let addr = canonical(addr);
    let Ok(local) = tcp.local_addr().map(canonical) else {
        return;
    };
    match Box::pin(handshake(&pod, tcp)).await {
        Ok((tunnel, identity)) => {
            drop(permit);
            let peer = Peer { addr, identity, local };
            Box::pin(requests(pod, life, tunnel, peer)).await;
        }
        Err(refusal) => refused(&pod, inbound(&pod, None, stranger(addr), local, None), &refusal),
    }
}

type Tunnel = ServerTunnel<Watched<tls::Stream<TcpStream>>>;

async fn handshake(pod: &PodShared, tcp: TcpStream) -> Result<(Tunnel, Identity), Refusal> {
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
    Ok((tunnel, identity))
}

/// Takes requests until the peer goes, or until the pod is closing and the last stream
/// has finished. Streams end with the connection, but for what their application still
/// has to read.
async fn requests(pod: Arc<PodShared>, life: Life, mut tunnel: Tunnel, peer: Peer) {
    let mut draining = false;
    loop {
        tokio::select! {
            next = tunnel.next() => match next {
                Ok(Some(incoming)) => {
                    life.spawn(stream(Arc::clone(&pod), peer.clone(), incoming));
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
async fn stream(pod: Arc<PodShared>, peer: Peer, incoming: Incoming) {
    let _counted = Counted::new(&pod.inbound);
    let mut changes = pod.context.view.changes();
    let (connection, known) = match admit(&pod, &peer, &incoming).await {
        Ok(admitted) => admitted,
        Err((dst, refusal)) => {
            let view = pod.context.view.current();
            let network = &pod.context.settings.network;
            let src = client(view.as_deref(), network, peer.addr, Some(&peer.identity));
            refused(&pod, inbound(&pod, None, src, dst, Some(peer.local)), &refusal);
            return incoming.refuse(refusal.status());
        }
    };
    let (view, workload) = &known;
    let src = source(view, &workload.network, &peer, &incoming);
    let dst = connection.destination;
    let facts = inbound(&pod, Some(&known), src, dst, Some(peer.local));
    let guard = pod.context.telemetry.open(facts);
    let (app, stream) = match connect(&pod, &peer, dst, &known, incoming).await {
        Ok(both) => both,
        Err(failure) => return guard.close(Err(failure)),
    };
    let moved = |flow, bytes| match flow {
        Flow::IntoTunnel => guard.add_sent(bytes),
        Flow::OutOfTunnel => guard.add_received(bytes),
    };
    let result = tokio::select! {
        result = carry(app, stream, moved) => result,
        offence = pod.offence(&connection, &mut changes) => Err(offence.failure()),
    };
    guard.close(result);
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
    peer: &Peer,
    incoming: &Incoming,
) -> Result<(mesh::Connection, Known), (SocketAddr, Refusal)> {
    let destination =
        target(incoming.authority(), peer.local.ip()).map_err(|refusal| (peer.local, refusal))?;
    let connection =
        mesh::Connection { source: peer.addr, identity: Some(peer.identity.clone()), destination };
    let known = pod.admit(&connection).await.map_err(|refusal| (destination, refusal))?;
    Ok((connection, known))
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

/// Moves bytes until both ends have finished.
async fn carry(
    app: AppSocket,
    stream: TunnelStream,
    moved: impl Fn(Flow, u64),
) -> Result<(), Failure> {
    let result = tokio::select! {
        result = pump(&app, stream, moved) => result,
        error = app.broken() => Err(PumpError::Application(error)),
    };
    result.map_err(|error| failure(ResponseFlags::None, &error))?;
    app.finished();
    Ok(())
}
