//! Mutual TLS between ztunnels: both ends prove a SPIFFE id.

use std::net::IpAddr;
use std::time::Duration;

use mesh::Identity;
use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::credentials::Credentials;
use super::peer::{PeerError, expiry_of, identity_of};
use super::stream::Stream;
use super::watched::{Peer, Proved};
use super::{ALPN_H2, TlsError, handshake};
use crate::telemetry::Reporter;

/// Serves a handshake on `io` and tells who the client is.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Config`],
/// [`TlsError::Peer`].
pub async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(
    credentials: &Credentials,
    io: Io,
    deadline: Duration,
) -> Result<(Stream<Io>, Peer), TlsError> {
    let session = UnbufferedServerConnection::new(credentials.server());
    let session = Box::new(session.map_err(TlsError::Config)?);
    let stream = timeout(deadline, handshake::accept(io, session))
        .await
        .map_err(|_| TlsError::Deadline("the TLS client".to_owned()))?
        .map_err(TlsError::Handshake)?;
    let peer = checked(stream.session(), credentials, Reporter::Destination)?;
    Ok((stream, peer))
}

/// Performs a handshake on `io` with a server that must be one of `accepted`, and tells
/// which.
///
/// # Errors
/// [`TlsError::Deadline`], [`TlsError::Handshake`], [`TlsError::Alpn`], [`TlsError::Config`],
/// [`TlsError::Peer`].
pub async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
    credentials: &Credentials,
    accepted: &[Identity],
    io: Io,
    peer: IpAddr,
    deadline: Duration,
) -> Result<(Stream<Io>, Peer), TlsError> {
    let name = ServerName::IpAddress(peer.into());
    let session = UnbufferedClientConnection::new(credentials.client(accepted)?, name);
    let session = Box::new(session.map_err(TlsError::Config)?);
    let stream = timeout(deadline, handshake::connect(io, session))
        .await
        .map_err(|_| TlsError::Deadline(format!("the TLS server at {peer}")))?
        .map_err(TlsError::Handshake)?;
    let peer = checked(stream.session(), credentials, Reporter::Source)?;
    Ok((stream, peer))
}

/// What a finished handshake must have brought.
fn checked(
    connection: &CommonState,
    credentials: &Credentials,
    reporter: Reporter,
) -> Result<Peer, TlsError> {
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err(TlsError::Alpn);
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    let leaf = chain.first().ok_or(PeerError::None)?;
    let proved = Proved { identity: identity_of(leaf)?, until: expiry_of(leaf)? };
    let revocation = &credentials.terms().revocation;
    Ok(Peer::new(proved, chain, credentials.roots(), revocation, reporter))
}
