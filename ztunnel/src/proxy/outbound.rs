//! Connections that the pod's applications open (port 15001).

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh::Workload;
use netns::{OrigDst, original_dst};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::admission::Known;
use super::app_socket::AppSocket;
use super::dial::DialError;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{Counted, canonical, failure, refused, stranger};
use super::splice::splice;
use super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use crate::hbone::{Connect, Flow, OpenError, PoolKey, PumpError, pump};
use crate::identity::IdentityError;
use crate::route::{
    Authority, Passthrough, PassthroughReason, Place, Reach, Request, Route, Sample, Tunnel, route,
};
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
pub(super) async fn serve(pod: Arc<PodShared>, app: AppSocket, client: SocketAddr) {
    let _counted = Counted::new(&pod.outbound);
    let client = canonical(client);
    let dst = match destination(&app) {
        Ok(dst) => dst,
        Err(refusal) => {
            let local = app.local_addr().map_or(client, canonical);
            return refused(&pod, facts(&pod, None, client, stranger(local)), &refusal);
        }
    };
    let known = match pod.known().await {
        Ok(known) => known,
        Err(refusal) => {
            return refused(&pod, facts(&pod, None, client, stranger(dst.0)), &refusal);
        }
    };
    let request = Request {
        source: &known.1,
        client: client.ip(),
        dst,
        view: &known.0,
        sample: Sample::draw(|| fastrand::u64(..)),
    };
    let refusal = match decide(&request) {
        Ok(Way::Tunnel(to, hbone)) => {
            return Box::pin(tunnel(&pod, app, client, &known, to, hbone)).await;
        }
        Ok(Way::Passthrough(to, addr)) => {
            return Box::pin(passthrough(&pod, app, client, &known, to, addr)).await;
        }
        Err(refusal) => refusal,
    };
    refused(&pod, facts(&pod, Some(&known.1), client, stranger(dst.0)), &refusal);
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
    app: AppSocket,
    client: SocketAddr,
    (_, source): &Known,
    to: Tunnel,
    hbone: SocketAddr,
) {
    let dst = Endpoint {
        addr: match &to.authority {
            Authority::Address(addr) => *addr,
            Authority::Name { .. } | Authority::Resolve { .. } => hbone,
        },
        identity: to.expected.first().cloned(),
        workload: Some(Arc::clone(&to.peer)),
    };
    let guard = pod.context.telemetry.open(ConnectionOpen {
        hbone_addr: Some(hbone),
        security: Security::MutualTls,
        ..facts(pod, Some(source), client, dst)
    });
    let connect =
        Connect { authority: to.authority.to_string(), headers: headers::request(source, client) };
    let key =
        PoolKey { source: pod.lease.identity().clone(), accepted: to.expected, destination: hbone };
    let stream = match pod.pool.open(&key, &connect, || dial_peer(pod, &key)).await {
        Ok((stream, _headers)) => stream,
        Err(error) => return guard.close(Err(open_failure(&error))),
    };
    let moved = |flow, bytes| match flow {
        Flow::IntoTunnel => guard.add_received(bytes),
        Flow::OutOfTunnel => guard.add_sent(bytes),
    };
    let result = tokio::select! {
        result = pump(&app, stream, moved) => result,
        error = app.broken() => Err(PumpError::Application(error)),
    };
    end(guard, result.map_err(|e| failure(ResponseFlags::None, &e)), [app]);
}

/// Closes well what ended well; what did not is reset as it is dropped.
fn end<const N: usize>(
    guard: ConnectionGuard,
    result: Result<(), Failure>,
    sockets: [AppSocket; N],
) {
    if result.is_ok() {
        sockets.into_iter().for_each(AppSocket::finished);
    }
    guard.close(result);
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
    app: AppSocket,
    client: SocketAddr,
    (_, source): &Known,
    to: Passthrough,
    addr: SocketAddr,
) {
    if to.reason == PassthroughReason::UnknownDestination {
        pod.context.telemetry.passthrough_unknown_destination();
    }
    let dst = Endpoint { addr, workload: to.peer, identity: None };
    let guard = pod.context.telemetry.open(facts(pod, Some(source), client, dst));
    let remote = match pod.dialer.dial_app(None, addr).await {
        Ok(remote) => remote,
        Err(error) => return guard.close(Err(failure(ResponseFlags::Connect, &error))),
    };
    let (received, sent) = (|n| guard.add_received(n), |n| guard.add_sent(n));
    let result = tokio::select! {
        result = splice(&app, &remote, received, sent) => result,
        error = app.broken() => Err(error),
        error = remote.broken() => Err(error),
    };
    end(guard, result.map_err(|e| failure(ResponseFlags::None, &e)), [app, remote]);
}
