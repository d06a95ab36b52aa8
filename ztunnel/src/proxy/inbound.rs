//! Tunnels of peers (port 15008).

mod begin;
pub(super) mod destination;
pub(super) mod expiry;
mod preface;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh::Identity;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::Arrival;
use super::app_socket::AppSocket;
use super::limits::Place;
use super::pod::{Life, PodShared};
use super::refusal::Refusal;
use super::report::{canonical, inbound, refused, stranger, torn};
use super::stages::begin_then;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT};
use crate::hbone::{Flow, Incoming, ServerTunnel, pump};
use crate::telemetry::Step;
use crate::tls::{self, Watched};
use begin::{Open, begin};
use expiry::{Due, Expiry};

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
        Ok((tunnel, Proved { identity, until }, place)) => {
            let peer = Peer { addr, identity, local };
            let settings = &pod.context.settings;
            let expiry = Expiry::new(until, settings.clock, settings.drain_deadline);
            Box::pin(requests(pod, life, worker, tunnel, peer, expiry)).await;
            drop(place);
        }
        Err(refusal) => refused(&pod, inbound(&pod, None, stranger(addr), local), &refusal),
    }
}

type Tunnel = ServerTunnel<Watched<tls::Stream<TcpStream>>>;

/// Who a client is, and for how long that is proved.
struct Proved {
    identity: Identity,
    until: SystemTime,
}

async fn handshake(
    pod: &PodShared,
    tcp: TcpStream,
    addr: SocketAddr,
) -> Result<(Tunnel, Proved, Place), Refusal> {
    let _handshake = match pod.handshakes.take(addr.ip()) {
        Ok(place) => place,
        Err(full) => {
            // Reset, so that nothing of a shed connection stays behind.
            drop(AppSocket::new(tcp));
            return Err(full.into());
        }
    };
    let certified = timeout(KNOWLEDGE_WAIT, pod.identity.certificate())
        .await
        .map_err(|_| Refusal::NoCertificate(pod.no_certificate()))?
        .map_err(|error| Refusal::NoCertificate(error.to_string()))?;
    let begun = Instant::now();
    let unproved = |error: &dyn std::fmt::Display| Refusal::Handshake(error.to_string());
    let (stream, peer) = tls::accept(certified.credentials(), tcp, HANDSHAKE_DEADLINE)
        .await
        .map_err(|error| match error.is_revoked() {
            true => Refusal::Revoked(error.to_string()),
            false => unproved(&error),
        })?;
    let proved = Proved { identity: peer.identity.clone(), until: peer.until };
    let settings = &pod.context.settings.hbone;
    let tunnel = ServerTunnel::accept(peer.watch(stream), settings, HANDSHAKE_DEADLINE)
        .await
        .map_err(|error| unproved(&error))?;
    pod.context.telemetry.took(Step::HandshakeServer, begun.elapsed());
    Ok((tunnel, proved, pod.tunnels.take()?))
}

/// Takes requests until the peer goes, or until the pod is closing or the client's
/// certificate has ended, and the last stream has finished. Streams end with the
/// connection, but for what their application still has to read.
async fn requests(
    pod: Arc<PodShared>,
    life: Life,
    worker: usize,
    mut tunnel: Tunnel,
    peer: Peer,
    mut expiry: Expiry,
) {
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
            due = expiry.next() => {
                tracing::info!(pod = %pod.name(), peer = %peer.identity, addr = %peer.addr, ?due,
                    "the certificate that a tunnel was opened with has expired");
                match due {
                    Due::Drain if draining => {}
                    Due::Drain => {
                        draining = true;
                        tunnel.drain();
                    }
                    Due::Cut => return,
                }
            }
        }
    }
}

/// One request, to the end of its stream.
pub(super) fn stream(
    pod: Arc<PodShared>,
    worker: usize,
    peer: Arc<Peer>,
    incoming: Incoming,
) -> impl Future<Output = ()> + Send + 'static {
    begin_then(begin(pod, worker, peer, incoming), carry)
}

/// Nothing is taken out of `open` before the end: that would keep room for two of it.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps room for two of its arguments")]
fn carry(mut open: Open) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let guard = &open.guard;
        let moved = |flow, bytes| match flow {
            Flow::IntoTunnel => guard.add_sent(bytes),
            Flow::OutOfTunnel => guard.add_received(bytes),
        };
        let result = tokio::select! {
            result = pump(&open.app, &mut open.stream, moved) => {
                result.map_err(|error| torn(&error))
            }
            refusal = open.seat.offence() => Err(refusal.failure()),
        };
        let Open { app, stream, guard, place, seat } = open;
        if result.is_ok() {
            app.finished();
        }
        drop(stream);
        guard.close(result);
        drop((seat, place));
    }
}
