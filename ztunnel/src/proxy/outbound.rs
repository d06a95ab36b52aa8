//! Connections that the pod's applications open (port 15001).

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh::Workload;
use netns::{OrigDst, original_dst};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::Arrival;
use super::admission::Known;
use super::app_socket::AppSocket;
use super::dial::DialError;
use super::limits::Place;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{canonical, failure, refused, stranger};
use super::roster::Seat;
use super::splice::splice;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use crate::hbone::{Connect, Flow, OpenError, PoolKey, PumpError, TunnelStream, pump};
use crate::identity::IdentityError;
use crate::route::{Passthrough, PassthroughReason, Route, Tunnel, route};
use crate::telemetry::{
    ConnectionGuard, ConnectionOpen, Direction, Endpoint, Failure, Reporter, ResponseFlags,
    Security,
};
use crate::tls::{self, TlsError};

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("own identity: {0}")]
    Identity(Arc<IdentityError>),
    #[error("own identity: the CA did not answer in time")]
    IdentityDeadline,
    #[error(transparent)]
    Dial(DialError),
    #[error(transparent)]
    Tls(TlsError),
}

/// One accepted connection, to its end.
pub(super) async fn serve(pod: Arc<PodShared>, Arrival { tcp, peer, worker }: Arrival) {
    let (app, client) = (AppSocket::new(tcp), canonical(peer));
    // Boxed: what is needed to begin must not be kept while bytes are carried.
    let Some(open) = Box::pin(begin(&pod, &app, client, worker)).await else { return };
    let Open { far, guard, place, seat } = open;
    let result = match far {
        Far::Tunnel(stream) => carry_tunnelled(&app, stream, &guard).await,
        Far::Clear(remote) => carry_clear(&app, remote, &guard).await,
    };
    // What did not end well is reset as it is dropped.
    if result.is_ok() {
        app.finished();
    }
    guard.close(result);
    drop((seat, place));
}

/// A connection, while it is open.
struct Open {
    far: Far,
    guard: ConnectionGuard,
    place: Place,
    seat: Seat,
}

/// What an application's connection was connected with.
enum Far {
    Tunnel(TunnelStream),
    Clear(AppSocket),
}

async fn begin(
    pod: &Arc<PodShared>,
    app: &AppSocket,
    client: SocketAddr,
    worker: usize,
) -> Option<Open> {
    let (place, dst) = match take(pod, app) {
        Ok(taken) => taken,
        Err(refusal) => {
            let local = app.local_addr().map_or(client, canonical);
            refused(pod, facts(pod, None, client, stranger(local)), &refusal);
            return None;
        }
    };
    let seat = pod.roster.outbound(worker, client, dst.0);
    let known = pod.known().await;
    let known =
        known.and_then(|known| if app.abandoned() { Err(Refusal::Abandoned) } else { Ok(known) });
    let known = match known {
        Ok(known) => known,
        Err(refusal) => {
            refused(pod, facts(pod, None, client, stranger(dst.0)), &refusal);
            return None;
        }
    };
    let opened = match route(&known.1, client.ip(), dst, &known.0) {
        Route::Tunnel(to) => tunnel(pod, worker, client, &known, to).await,
        Route::Passthrough(to) => passthrough(pod, client, &known, to).await,
        Route::Refuse(refusal) => {
            let open = facts(pod, Some(&known.1), client, stranger(dst.0));
            refused(pod, open, &refusal.into());
            None
        }
    };
    opened.map(|(far, guard)| Open { far, guard, place, seat })
}

/// May it be looked at, and where was it going to?
fn take(pod: &PodShared, app: &AppSocket) -> Result<(Place, OrigDst), Refusal> {
    if !pod.context.descriptors.allow(&**app) {
        return Err(Refusal::Descriptors);
    }
    let place = pod.outbound.take()?;
    Ok((place, destination(app)?))
}

/// Without a redirection the kernel names our own listener, or nothing.
fn destination(app: &TcpStream) -> Result<OrigDst, Refusal> {
    let dst = original_dst(app).map_err(|_| Refusal::NotRedirected)?;
    let local = app.local_addr().map_err(|_| Refusal::NotRedirected)?;
    if dst.0 == canonical(local) { Err(Refusal::NotRedirected) } else { Ok(dst) }
}

fn facts(
    pod: &PodShared,
    source: Option<&Arc<Workload>>,
    client: SocketAddr,
    dst: Endpoint,
) -> ConnectionOpen {
    ConnectionOpen {
        reporter: Reporter::Source,
        direction: Direction::Outbound,
        src: Endpoint {
            addr: client,
            workload: source.cloned(),
            identity: Some(pod.lease.identity().clone()),
        },
        dst,
        hbone_addr: None,
        security: Security::Plain,
    }
}

async fn tunnel(
    pod: &Arc<PodShared>,
    worker: usize,
    client: SocketAddr,
    (_, source): &Known,
    to: Tunnel,
) -> Option<(Far, ConnectionGuard)> {
    let dst = Endpoint {
        addr: to.authority,
        identity: to.expected.first().cloned(),
        workload: Some(Arc::clone(&to.peer)),
    };
    let guard = pod.context.telemetry.open(ConnectionOpen {
        hbone_addr: Some(to.hbone_addr),
        security: Security::MutualTls,
        ..facts(pod, Some(source), client, dst)
    });
    let connect =
        Connect { authority: to.authority.to_string(), headers: headers::request(source, client) };
    let key = PoolKey {
        source: pod.lease.identity().clone(),
        accepted: to.expected,
        destination: to.hbone_addr,
    };
    match pod.pool(worker).open(&key, &connect, || dial_peer(pod, &key)).await {
        Ok((stream, _headers)) => Some((Far::Tunnel(stream), guard)),
        Err(error) => {
            guard.close(Err(open_failure(&error)));
            None
        }
    }
}

fn dial_peer(
    pod: &Arc<PodShared>,
    key: &PoolKey,
) -> impl Future<Output = Result<tokio_rustls::client::TlsStream<TcpStream>, PeerError>>
+ Send
+ 'static
+ use<> {
    let (pod, key) = (Arc::clone(pod), key.clone());
    async move {
        let certified = timeout(KNOWLEDGE_WAIT, pod.lease.certificate())
            .await
            .map_err(|_| PeerError::IdentityDeadline)?
            .map_err(PeerError::Identity)?;
        let tcp = pod.dialer.dial_peer(key.destination).await.map_err(PeerError::Dial)?;
        let credentials = certified.credentials();
        let ip = key.destination.ip();
        let secured = tls::connect(credentials, &key.accepted, tcp, ip, HANDSHAKE_DEADLINE);
        Ok(secured.await.map_err(PeerError::Tls)?.0)
    }
}

fn open_failure(error: &OpenError<PeerError>) -> Failure {
    let flags = match error {
        OpenError::Dial(error) => match **error {
            PeerError::Identity(_) | PeerError::IdentityDeadline => ResponseFlags::IdentityError,
            PeerError::Dial(DialError::Deadline { .. }) => ResponseFlags::NetworkPolicy,
            PeerError::Dial(_) => ResponseFlags::Connect,
            PeerError::Tls(_) => ResponseFlags::TlsFailure,
        },
        OpenError::Handshake(_) => ResponseFlags::H2HandshakeFailure,
        OpenError::Refused(StatusCode::UNAUTHORIZED) => ResponseFlags::Deny,
        OpenError::Refused(_) | OpenError::Deadline => ResponseFlags::Connect,
        OpenError::Request(_) | OpenError::Malformed(_) => ResponseFlags::None,
    };
    failure(flags, error)
}

async fn passthrough(
    pod: &PodShared,
    client: SocketAddr,
    (_, source): &Known,
    to: Passthrough,
) -> Option<(Far, ConnectionGuard)> {
    if to.reason == PassthroughReason::UnknownDestination {
        pod.context.telemetry.passthrough_unknown_destination();
    }
    let dst = Endpoint { addr: to.dst, workload: to.peer, identity: None };
    let guard = pod.context.telemetry.open(facts(pod, Some(source), client, dst));
    match pod.dialer.dial_app(None, to.dst).await {
        Ok(remote) => Some((Far::Clear(remote), guard)),
        Err(error) => {
            guard.close(Err(failure(ResponseFlags::Connect, &error)));
            None
        }
    }
}

async fn carry_tunnelled(
    app: &AppSocket,
    stream: TunnelStream,
    guard: &ConnectionGuard,
) -> Result<(), Failure> {
    let moved = |flow, bytes| match flow {
        Flow::IntoTunnel => guard.add_received(bytes),
        Flow::OutOfTunnel => guard.add_sent(bytes),
    };
    let result = tokio::select! {
        result = pump(app, stream, moved) => result,
        error = app.broken() => Err(PumpError::Application(error)),
    };
    result.map_err(|error| failure(ResponseFlags::None, &error))
}

async fn carry_clear(
    app: &AppSocket,
    remote: AppSocket,
    guard: &ConnectionGuard,
) -> Result<(), Failure> {
    let (received, sent) = (|n| guard.add_received(n), |n| guard.add_sent(n));
    let result = tokio::select! {
        result = splice(app, &remote, received, sent) => result,
        error = app.broken() => Err(error),
        error = remote.broken() => Err(error),
    };
    result.map_err(|error| failure(ResponseFlags::None, &error))?;
    remote.finished();
    Ok(())
}
