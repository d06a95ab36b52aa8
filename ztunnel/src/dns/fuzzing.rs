//! What fuzz targets reach of this room beyond [`answer`](super::answer()): what
//! resolvers say, and how messages lie on a connection.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use tokio::io::AsyncRead;

use super::frame::FrameReader;
use super::{Family, resolver, transfer, wire};

/// Whether `response` is believed to answer `query`.
#[must_use]
pub fn answers(response: &[u8], query: &[u8]) -> bool {
    wire::answers(response, query)
}

/// The SERVFAIL to a message.
#[must_use]
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    wire::failure(query, wire::code::SERVER_FAILURE)
}

/// Whether a message asks for a whole zone.
#[must_use]
pub fn is_transfer(query: &[u8]) -> bool {
    transfer::is_transfer(query)
}

/// The addresses that an answer to ztunnel's own question holds.
#[must_use]
pub fn addresses(answer: &[u8], host: &str, family: Family) -> Option<Vec<IpAddr>> {
    resolver::read(answer, host, Name::from_ascii(host).ok()?, family).ok()
}

/// The messages on a connection, until its end or the first mistake.
pub async fn frames(mut from: impl AsyncRead + Unpin) -> Vec<Vec<u8>> {
    let (mut reader, mut messages) = (FrameReader::default(), Vec::new());
    while let Ok(Some(message)) = reader.next(&mut from).await {
        messages.push(message);
    }
    messages
}
