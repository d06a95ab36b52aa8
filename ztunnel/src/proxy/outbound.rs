//! Connections that the pod's applications open (port 15001).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use mesh::Workload;
use netns::{OrigDst, original_dst};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::Arrival;
use super::admission::Known;
use super::app_socket::AppSocket;
use super::dial::DialError;
use super::limits;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{canonical, failure, refused, stranger};
use super::roster::Seat;
use super::splice::splice;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use crate::hbone::{Connect, Flow, OpenError, PoolKey, PumpError, TunnelStream, pump};
use crate::identity::IdentityError;
use crate::route::{
    Authority, Passthrough, PassthroughReason, Place, Reach, Request, Route, Sample, Tunnel, route,
};
use crate::telemetry::{
    ConnectionGuard, ConnectionOpen, Direction, Endpoint, Failure, Reporter, ResponseFlags,
    Security, Step,
};
use crate::tls::{self, TlsError, Watched};

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
    place: limits::Place,
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
    let known = pod.known_toward(dst).await;
    let known =
        known.and_then(|known| if app.abandoned() { Err(Refusal::Abandoned) } else { Ok(known) });
    let known = match known {
        Ok(known) => known,
        Err(refusal) => {
            refused(pod, facts(pod, None, client, stranger(dst.0)), &refusal);
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
    let opened = match decide(&request) {
        Ok(Way::Tunnel(to, hbone)) => tunnel(pod, worker, client, &known, to, hbone).await,
        Ok(Way::Passthrough(to, addr)) => passthrough(pod, client, &known, to, addr).await,
        Err(refusal) => {
            refused(pod, facts(pod, Some(&known.1), client, stranger(dst.0)), &refusal);
            None
        }
    };
    opened.map(|(far, guard)| Open { far, guard, place, seat })
}

/// A route with what is to be dialled for it.
enum Way {
    Tunnel(Tunnel, SocketAddr),
    Passthrough(Passthrough, SocketAddr),
}

/// Routes that lead through a gateway, or to a name, are refused: nothing here can take
/// them, and there is no other way that is as safe.
fn decide(request: &Request<'_>) -> Result<Way, Refusal> {
    let dialled = |place: &Place| match place {
        Place::Address(addr) => Ok(*addr),
        Place::Resolve { hostname, .. } => Err(Refusal::HostnameDestination(hostname.to_string())),
    };
    match route(request) {
        Route::Tunnel(to) => match &to.reach {
            Reach::Direct(place) => dialled(place).map(|addr| Way::Tunnel(to, addr)),
            Reach::Through(_) => Err(Refusal::OtherNetwork(to.peer.network.to_string())),
        },
        Route::Passthrough(to) => dialled(&to.dst).map(|addr| Way::Passthrough(to, addr)),
        Route::Refuse(refusal) => Err(refusal.into()),
    }
}

/// May it be looked at, and where was it going to?
fn take(pod: &PodShared, app: &AppSocket) -> Result<(limits::Place, OrigDst), Refusal> {
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
        service: None,
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
    hbone: SocketAddr,
) -> Option<(Far, ConnectionGuard)> {
    let dst = Endpoint {
        addr: match &to.authority {
            Authority::Address(addr) => *addr,
            Authority::Name { .. } | Authority::Resolve { .. } => hbone,
        },
        identity: to.expected.first().cloned(),
        workload: Some(Arc::clone(&to.peer)),
    };
    let guard = pod.context.telemetry.open(ConnectionOpen {
        service: to.service.clone(),
        hbone_addr: Some(hbone),
        security: Security::MutualTls,
        ..facts(pod, Some(source), client, dst)
    });
    let connect = Connect {
        authority: to.authority.to_string(),
        headers: headers::request(source, client, to.service.as_deref()),
    };
    let key =
        PoolKey { source: pod.lease.identity().clone(), accepted: to.expected, destination: hbone };
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
) -> impl Future<Output = Result<Watched<tls::Stream<TcpStream>>, PeerError>> + Send + 'static + use<>
{
    let (pod, key) = (Arc::clone(pod), key.clone());
    async move {
        let certified = timeout(KNOWLEDGE_WAIT, pod.lease.certificate())
            .await
            .map_err(|_| PeerError::IdentityDeadline)?
            .map_err(PeerError::Identity)?;
        let tcp = pod.dialer.dial_peer(key.destination).await.map_err(PeerError::Dial)?;
        let credentials = certified.credentials();
        let ip = key.destination.ip();
        let begun = Instant::now();
        let secured = tls::connect(credentials, &key.accepted, tcp, ip, HANDSHAKE_DEADLINE);
        let (stream, peer) = secured.await.map_err(PeerError::Tls)?;
        pod.context.telemetry.took(Step::HandshakeClient, begun.elapsed());
        Ok(peer.watch(stream))
    }
}

fn open_failure(error: &OpenError<PeerError>) -> Failure {
    let flags = match error {
        OpenError::Dial(error) => match &**error {
            PeerError::Identity(_) | PeerError::IdentityDeadline => ResponseFlags::IdentityError,
            PeerError::Dial(DialError::Deadline { .. }) => ResponseFlags::NetworkPolicy,
            PeerError::Dial(_) => ResponseFlags::Connect,
            PeerError::Tls(error) if error.is_revoked() => ResponseFlags::CertRevoked,
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
    addr: SocketAddr,
) -> Option<(Far, ConnectionGuard)> {
    if to.reason == PassthroughReason::UnknownDestination {
        pod.context.telemetry.passthrough_unknown_destination();
    }
    let dst = Endpoint { addr, workload: to.peer, identity: None };
    let guard = pod
        .context
        .telemetry
        .open(ConnectionOpen { service: to.service, ..facts(pod, Some(source), client, dst) });
    match pod.dialer.dial_app(None, addr).await {
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
