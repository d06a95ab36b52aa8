//! Plaintext that arrives at the pod (port 15006): from outside the mesh, and judged
//! without an identity.

use std::net::SocketAddr;
use std::sync::Arc;

use netns::original_dst;

use super::accept::Arrival;
use super::app_socket::AppSocket;
use super::limits::Place;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{canonical, client, failure, inbound, refused, stranger};
use super::roster::Seat;
use super::splice::splice;
use super::stages::begin_then;
use super::target::own_port;
use crate::telemetry::{ConnectionGuard, ResponseFlags};

/// One accepted connection, to its end.
pub(super) fn serve(
    pod: Arc<PodShared>,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send + 'static {
    begin_then(begin(pod, arrival), carry)
}

/// Nothing is taken out of `open` before the end: that would keep room for two of it.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps room for two of its arguments")]
fn carry(open: Open) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let guard = &open.guard;
        let (received, sent) = (|n| guard.add_received(n), |n| guard.add_sent(n));
        let result = tokio::select! {
            result = splice(&open.remote, &open.app, received, sent) => {
                result.map_err(|error| failure(ResponseFlags::None, &error))
            }
            refusal = open.seat.offence() => Err(refusal.failure()),
        };
        let Open { remote, app, guard, place, seat } = open;
        if result.is_ok() {
            remote.finished();
            app.finished();
        }
        guard.close(result);
        drop((seat, place));
    }
}

/// An admitted connection, while it is open.
struct Open {
    remote: AppSocket,
    app: AppSocket,
    guard: ConnectionGuard,
    place: Place,
    seat: Seat,
}

async fn begin(pod: Arc<PodShared>, Arrival { tcp, peer, worker }: Arrival) -> Option<Open> {
    let (pod, remote, source) = (&*pod, AppSocket::new(tcp), canonical(peer));
    let (place, destination) = match take(pod, &remote) {
        Ok(taken) => taken,
        Err(refusal) => {
            let local = remote.local_addr().map_or(source, canonical);
            refused(pod, inbound(pod, None, stranger(source), local), &refusal);
            return None;
        }
    };
    let connection = mesh::Connection { source, identity: None, destination };
    let seat = pod.roster.enter(worker, connection.clone());
    let admitted = pod.admit(&connection).await;
    let admitted =
        admitted.and_then(|k| if remote.abandoned() { Err(Refusal::Abandoned) } else { Ok(k) });
    let known = match admitted {
        Ok(known) => known,
        Err(refusal) => {
            let view = pod.context.view.current();
            let network = &pod.context.settings.network;
            let src = client(view.as_deref(), network, source, None);
            let known = pod.judged(&refusal);
            refused(pod, inbound(pod, known.as_ref(), src, destination), &refusal);
            return None;
        }
    };
    let src = client(Some(&known.0), &known.1.network, source, None);
    let guard = pod.context.telemetry.open(inbound(pod, Some(&known), src, destination));
    match pod.dial_app(Some(source.ip()), destination).await {
        Ok(app) => Some(Open { remote, app, guard, place, seat }),
        Err(error) => {
            guard.close(Err(failure(ResponseFlags::Connect, &error)));
            None
        }
    }
}

/// May it be looked at, and where was it going to?
fn take(pod: &PodShared, tcp: &AppSocket) -> Result<(Place, SocketAddr), Refusal> {
    let place = pod.inbound.take()?;
    let dst = original_dst(&**tcp).map_err(|_| Refusal::NotRedirected)?;
    let local = tcp.local_addr().map_err(|_| Refusal::NotRedirected)?;
    if dst.0 == canonical(local) {
        return Err(Refusal::NotRedirected);
    }
    own_port(dst.0.port())?;
    Ok((place, dst.0))
}
