//! Connections that the pod's applications open (port 15001).

mod tunnel;
mod way;

use std::net::SocketAddr;
use std::sync::Arc;

use netns::{OrigDst, original_dst};
use tokio::net::TcpStream;

use super::accept::Arrival;
use super::app_socket::AppSocket;
use super::limits;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{self, canonical, failure, refused, stranger, torn};
use super::splice::splice;
use super::stages::begin_then;
use crate::hbone::{Flow, TunnelStream, pump};
use crate::route::{Passthrough, PassthroughReason, Request, Sample};
use crate::telemetry::{ConnectionGuard, ConnectionOpen, Endpoint, ResponseFlags};

pub(super) use tunnel::PeerError;
use way::{Way, way};

/// One accepted connection, to its end.
pub(super) fn serve(
    pod: Arc<PodShared>,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send + 'static {
    begin_then(begin(pod, arrival), carry)
}

/// A connection, while it is open.
struct Open {
    app: AppSocket,
    far: Far,
    guard: ConnectionGuard,
    place: limits::Place,
}

/// What an application's connection was connected with.
enum Far {
    Tunnel(TunnelStream),
    Clear(AppSocket),
}

impl Far {
    fn finished(self) {
        match self {
            Self::Tunnel(_) => {}
            Self::Clear(remote) => remote.finished(),
        }
    }
}

async fn begin(pod: Arc<PodShared>, Arrival { tcp, peer, worker }: Arrival) -> Option<Open> {
    let (app, client) = (AppSocket::new(tcp), canonical(peer));
    let (place, dst) = match take(&pod, &app) {
        Ok(taken) => taken,
        Err(refusal) => {
            let local = app.local_addr().map_or(client, canonical);
            refused(&pod, report::outbound(&pod, None, client, stranger(local)), &refusal);
            return None;
        }
    };
    let known = pod.known_toward(dst).await;
    let known =
        known.and_then(|known| if app.abandoned() { Err(Refusal::Abandoned) } else { Ok(known) });
    let known = match known {
        Ok(known) => known,
        Err(refusal) => {
            refused(&pod, report::outbound(&pod, None, client, stranger(dst.0)), &refusal);
            return None;
        }
    };
    let request = Request {
        source: &known.1,
        client: client.ip(),
        dst,
        view: &known.0,
        sample: Sample::draw(|| fastrand::u64(..)),
    };
    let facts = report::outbound(&pod, Some(&known.1), client, stranger(dst.0));
    let opened = match way(&pod, &request).await {
        Ok(Way::Tunnel(to, addr)) => tunnel::open(&pod, worker, &known, facts, to, addr).await,
        Ok(Way::Passthrough(to, addr)) => passthrough(&pod, facts, to, addr).await,
        Err(refusal) => {
            refused(&pod, facts, &refusal);
            None
        }
    };
    opened.map(|(far, guard)| Open { app, far, guard, place })
}

/// May it be looked at, and where was it going to?
fn take(pod: &PodShared, app: &AppSocket) -> Result<(limits::Place, OrigDst), Refusal> {
    let place = pod.outbound.take()?;
    Ok((place, destination(app)?))
}

/// Without a redirection the kernel names our own listener, or nothing.
fn destination(app: &TcpStream) -> Result<OrigDst, Refusal> {
    let dst = original_dst(app).map_err(|_| Refusal::NotRedirected)?;
    let local = app.local_addr().map_err(|_| Refusal::NotRedirected)?;
    if dst.0 == canonical(local) { Err(Refusal::NotRedirected) } else { Ok(dst) }
}

async fn passthrough(
    pod: &PodShared,
    facts: ConnectionOpen,
    to: Passthrough,
    addr: SocketAddr,
) -> Option<(Far, ConnectionGuard)> {
    if to.reason == PassthroughReason::UnknownDestination {
        pod.context.telemetry.passthrough_unknown_destination();
    }
    let dst = Endpoint { addr, workload: to.peer, identity: None };
    let facts = ConnectionOpen { dst, service: to.service, ..facts };
    let guard = pod.context.telemetry.open(facts);
    match pod.dial_app(None, addr).await {
        Ok(remote) => Some((Far::Clear(remote), guard)),
        Err(error) => {
            guard.close(Err(failure(ResponseFlags::Connect, &error)));
            None
        }
    }
}

/// Nothing is taken out of `open` before the end: that would keep room for two of it.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps room for two of its arguments")]
fn carry(mut open: Open) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let (app, guard) = (&open.app, &open.guard);
        let result = match &mut open.far {
            Far::Tunnel(stream) => {
                let moved = |flow, bytes| match flow {
                    Flow::IntoTunnel => guard.add_received(bytes),
                    Flow::OutOfTunnel => guard.add_sent(bytes),
                };
                let pumped = pump(app, stream, moved).await;
                pumped.map_err(|error| torn(&error))
            }
            Far::Clear(remote) => {
                let (received, sent) = (|n| guard.add_received(n), |n| guard.add_sent(n));
                let spliced = splice(app, remote, received, sent).await;
                spliced.map_err(|error| failure(ResponseFlags::None, &error))
            }
        };
        let Open { app, far, guard, place } = open;
        // What did not end well is reset as it is dropped.
        if result.is_ok() {
            app.finished();
            far.finished();
        }
        guard.close(result);
        drop(place);
    }
}
