//! Mutual TLS between ztunnels: both ends prove a SPIFFE id.

use std::net::IpAddr;
use std::time::Duration;

use mesh::Identity;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::credentials::Credentials;
use super::peer::{PeerError, identity_of};
use super::watched::Peer;
use super::{ALPN_H2, TlsError};
use crate::telemetry::Reporter;

/// Serves a handshake on `tcp` and tells who the client is.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Peer`].
pub async fn accept(
    credentials: &Credentials,
    tcp: TcpStream,
    deadline: Duration,
) -> Result<(server::TlsStream<TcpStream>, Peer), TlsError> {
    let handshake = TlsAcceptor::from(credentials.server()).accept(tcp);
    let stream = timeout(deadline, handshake)
        .await
        .map_err(|_| TlsError::Deadline("the TLS client".to_owned()))?
        .map_err(TlsError::Handshake)?;
    let peer = checked(stream.get_ref().1, credentials, Reporter::Destination)?;
    Ok((stream, peer))
}

/// Performs a handshake on `tcp` with a server that must be one of `accepted`, and tells
/// which.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Config`].
pub async fn connect(
    credentials: &Credentials,
    accepted: &[Identity],
    tcp: TcpStream,
    peer: IpAddr,
    deadline: Duration,
) -> Result<(client::TlsStream<TcpStream>, Peer), TlsError> {
    let config = credentials.client(accepted)?;
    let name = ServerName::IpAddress(peer.into());
    let stream = timeout(deadline, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(|_| TlsError::Deadline(format!("the TLS server at {peer}")))?
        .map_err(TlsError::Handshake)?;
    let peer = checked(stream.get_ref().1, credentials, Reporter::Source)?;
    Ok((stream, peer))
}

/// What a finished handshake must have brought.
fn checked<Data>(
    connection: &rustls::ConnectionCommon<Data>,
    credentials: &Credentials,
    reporter: Reporter,
) -> Result<Peer, TlsError> {
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err(TlsError::Alpn);
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    let identity = identity_of(chain.first().ok_or(PeerError::None)?)?;
    let revocation = &credentials.terms().revocation;
    Ok(Peer::new(identity, chain, credentials.roots(), revocation, reporter))
}
