//! Tunnels to peers, and through the gateways of other networks.
//!
//! ```text
//! Direct    pod ══ mutual TLS ══► peer
//! Through   pod ══ mutual TLS ══► gateway of the network ── one of its streams ──► peer
//!            └══════ mutual TLS, for this connection alone, proved by the peer ═══► ┘
//! ```
//!
//! The inner connection is never shared: the gateway chooses a workload for each stream,
//! and what was chosen for one must not get the traffic of another.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use mesh::{Identity, Network};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::admission::Known;
use super::super::dial::DialError;
use super::super::pod::PodShared;
use super::super::report::failure;
use super::super::{HANDSHAKE_DEADLINE, KNOWLEDGE_WAIT, headers};
use super::Far;
use crate::hbone::{Connect, OpenError, PoolKey, TunnelStream};
use crate::identity::IdentityError;
use crate::route::{Authority, GatewayHop, Reach, Tunnel};
use crate::telemetry::{
    ConnectionGuard, ConnectionOpen, Endpoint, Hop, ResponseFlags, Security, Step,
};
use crate::tls::{self, TlsError, Watched};

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum PeerError {
    #[error("own identity: {0}")]
    Identity(Arc<IdentityError>),
    #[error("own identity: the CA did not answer in time")]
    IdentityDeadline,
    #[error(transparent)]
    Dial(DialError),
    #[error(transparent)]
    Tls(TlsError),
}

/// Which part of the way failed.
#[derive(Debug, thiserror::Error)]
enum ReachError {
    #[error(transparent)]
    Direct(OpenError<PeerError>),
    #[error("gateway of network {0:?}: {1}")]
    Gateway(Network, OpenError<PeerError>),
    #[error("behind the gateway of network {0:?}: {1}")]
    Beyond(Network, OpenError<PeerError>),
}

/// Opens a stream to the peer; `addr` is what is dialled for that.
pub(super) async fn open(
    pod: &Arc<PodShared>,
    worker: usize,
    (_, source): &Known,
    facts: ConnectionOpen,
    to: Tunnel,
    addr: SocketAddr,
) -> Option<(Far, ConnectionGuard)> {
    let connect = Connect {
        authority: to.authority.to_string(),
        headers: headers::request(source, facts.src.addr, to.service.as_deref()),
    };
    let dst = Endpoint {
        addr: match &to.authority {
            Authority::Address(addr) => *addr,
            Authority::Name { .. } | Authority::Resolve { .. } => facts.dialled,
        },
        identity: to.expected.first().cloned(),
        workload: Some(Arc::clone(&to.peer)),
    };
    let guard = pod.context.telemetry.open(ConnectionOpen {
        dst,
        service: to.service,
        hop: Some(Hop { peer: addr, target: connect.authority.as_str().into() }),
        security: Security::MutualTls,
        ..facts
    });
    let reached = match to.reach {
        Reach::Direct(_) => direct(pod, worker, addr, to.expected, &connect).await,
        Reach::Through(hop) => {
            let far = (&to.peer.network, &*to.expected);
            through(pod, worker, (hop, addr), far, connect, &source.network).await
        }
    };
    match reached {
        Ok(stream) => Some((Far::Tunnel(stream), guard)),
        Err(error) => {
            guard.close(Err(failure(flags(&error), &error)));
            None
        }
    }
}

async fn direct(
    pod: &Arc<PodShared>,
    worker: usize,
    addr: SocketAddr,
    accepted: Vec<Identity>,
    connect: &Connect,
) -> Result<TunnelStream, ReachError> {
    let stream = shared(pod, worker, addr, accepted, connect).await;
    stream.map_err(ReachError::Direct)
}

async fn through(
    pod: &Arc<PodShared>,
    worker: usize,
    (hop, addr): (GatewayHop, SocketAddr),
    (network, accepted): (&Network, &[Identity]),
    connect: Connect,
    own_network: &Network,
) -> Result<TunnelStream, ReachError> {
    let outer = shared(pod, worker, addr, hop.expected, &connect).await;
    let outer = outer.map_err(|error| ReachError::Gateway(Arc::clone(network), error))?;
    let beyond = |error| ReachError::Beyond(Arc::clone(network), error);
    let inner = secured(pod, accepted, outer.into_io(), addr.ip()).await;
    let inner = inner.map_err(|error| beyond(OpenError::Dial(Arc::new(error))))?;
    let headers = headers::beyond_gateway(connect.headers, own_network);
    let connect = Connect { headers, ..connect };
    let opened = pod.pool(worker).open_once(inner, &connect).await;
    Ok(opened.map_err(beyond)?.0)
}

/// A stream of a connection that other streams to the same peer share.
async fn shared(
    pod: &Arc<PodShared>,
    worker: usize,
    destination: SocketAddr,
    accepted: Vec<Identity>,
    connect: &Connect,
) -> Result<TunnelStream, OpenError<PeerError>> {
    let source = timeout(KNOWLEDGE_WAIT, pod.identity.identity()).await;
    let source = source.map_err(|_| OpenError::Dial(Arc::new(PeerError::IdentityDeadline)))?;
    let key = PoolKey { source, accepted, destination };
    let opened = pod.pool(worker).open(&key, connect, || dial_peer(pod, &key)).await?;
    Ok(opened.0)
}

fn dial_peer(
    pod: &Arc<PodShared>,
    key: &PoolKey,
) -> impl Future<Output = Result<Watched<tls::Stream<TcpStream>>, PeerError>> + Send + 'static + use<>
{
    let (pod, key) = (Arc::clone(pod), key.clone());
    async move {
        // First: without a certificate nobody needs to be dialled.
        certificate(&pod).await?;
        let tcp = pod.dial_peer(key.destination).await.map_err(PeerError::Dial)?;
        secured(&pod, &key.accepted, tcp, key.destination.ip()).await
    }
}

async fn certificate(
    pod: &PodShared,
) -> Result<Arc<crate::identity::CertifiedIdentity>, PeerError> {
    timeout(KNOWLEDGE_WAIT, pod.identity.certificate())
        .await
        .map_err(|_| PeerError::IdentityDeadline)?
        .map_err(PeerError::Identity)
}

/// Both ends prove who they are, the other one that it is one of `accepted`.
async fn secured<Io: AsyncRead + AsyncWrite + Unpin>(
    pod: &PodShared,
    accepted: &[Identity],
    io: Io,
    ip: IpAddr,
) -> Result<Watched<tls::Stream<Io>>, PeerError> {
    let certified = certificate(pod).await?;
    let begun = Instant::now();
    let secured = tls::connect(certified.credentials(), accepted, io, ip, HANDSHAKE_DEADLINE);
    let (stream, peer) = secured.await.map_err(PeerError::Tls)?;
    pod.context.telemetry.took(Step::HandshakeClient, begun.elapsed());
    Ok(peer.watch(stream))
}

fn flags(error: &ReachError) -> ResponseFlags {
    let (ReachError::Direct(error) | ReachError::Gateway(_, error) | ReachError::Beyond(_, error)) =
        error;
    match error {
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
    }
}
