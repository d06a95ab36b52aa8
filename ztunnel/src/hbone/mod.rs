//! The tunnel transport: byte streams inside HTTP/2 CONNECT, and the only room that
//! knows HTTP/2.
//!
//! ```text
//! Pool::open(key, dial, Connect) ──► TunnelStream ──► pump ◄──► the application's socket
//! ServerTunnel::accept(io) ── next() ──► Incoming ── accept(headers) ──► TunnelStream
//!                                            └────── refuse(status)
//! ```
//!
//! The boundary is narrow on purpose: who uses it sees streams of bytes that can be
//! opened, accepted, pumped and reset, so that the transport below can be replaced.

#[cfg(test)]
mod attacks;
mod backlog;
mod chunk;
mod claim;
mod cork;
mod goaway;
mod keepalive;
mod line;
mod pool;
mod pump;
mod server;
mod stream;
mod stream_io;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cork;
#[cfg(test)]
mod tests_nested;
#[cfg(test)]
mod tests_sizes;
#[cfg(test)]
mod tests_vanished;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use goaway::graceful_goaway;
pub use pool::{Pool, PoolKey};
pub use pump::{Flow, PumpError, pump};
pub use server::{Incoming, ServerError, ServerTunnel};
pub use stream::TunnelStream;
pub use stream_io::TunnelIo;

use http::{HeaderMap, StatusCode};

/// How long a stream that was reset is remembered. What its peer had sent before it heard
/// of the reset still comes in, and of a stream that is forgotten each such frame counts
/// among [`PEER_ERRORS`]. Longer than a loaded path delays a frame.
const LATE_FRAMES: Duration = Duration::from_secs(10);

/// Streams that we reset because the peer broke the rules on them, in the life of a
/// connection. Each costs an answer; an endless supply would be work without limit, so the
/// connection ends then. Honest peers cause next to none, see [`LATE_FRAMES`].
const PEER_ERRORS: usize = 512;

/// Sizes and times of tunnels. The defaults are those that Istio's ztunnel announces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes that one stream may have in flight.
    pub stream_window: u32,
    /// Bytes that all streams of a connection may have in flight together. Larger than a
    /// stream's, or one stalled stream would block the others.
    pub connection_window: u32,
    /// Largest frame we are willing to receive.
    pub frame_size: u32,
    /// Streams that we open on one connection before we make another.
    pub streams_per_connection: usize,
    /// Streams that a client may have open on one connection.
    pub concurrent_streams: u32,
    /// A connection without streams is released after this time.
    pub idle_release: Duration,
    /// Time between two PINGs.
    pub ping_interval: Duration,
    /// A connection is dead when its peer leaves a PING unanswered and nothing else comes
    /// for this long. What comes instead of the answer counts for ten times as long.
    pub ping_deadline: Duration,
    /// A peer that is silent for so long while its answer to a request is waited for is
    /// asked whether it is there. Silent for twice as long again, it gets no new streams.
    pub doubt_after: Duration,
    /// From the request to the peer's answer, which comes when the peer has reached the
    /// application.
    pub response_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_size: 1 << 20,
            streams_per_connection: 100,
            concurrent_streams: 200,
            idle_release: Duration::from_secs(300),
            ping_interval: Duration::from_secs(10),
            ping_deadline: Duration::from_secs(20),
            doubt_after: Duration::from_secs(1),
            response_deadline: Duration::from_secs(20),
        }
    }
}

impl Settings {
    /// h2 charges unread DATA frames below 256 bytes against a budget of the whole
    /// connection, and ends the connection, with all its tunnels, when it is spent.
    /// [`pump()`] takes frames in as they come, whether or not the application reads, so
    /// what is charged is only what arrives between two turns of its task: four windows'
    /// worth leaves room for a quarter of a million of the smallest frames.
    fn data_frame_budget(&self) -> usize {
        usize::try_from(self.connection_window).unwrap_or(usize::MAX).saturating_mul(4)
    }
}

/// What a client asks of the peer.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `ip:port`, an IPv6 address in brackets.
    pub authority: String,
    /// What goes along.
    pub headers: HeaderMap,
}

/// Why no stream could be opened. `E` is what dialling the peer fails with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// No connection to the peer.
    #[error(transparent)]
    Dial(Arc<E>),
    /// The peer does not speak HTTP/2.
    #[error("HTTP/2 handshake: {0}")]
    Handshake(Arc<h2::Error>),
    /// The connection or the stream ended before the peer answered.
    #[error("tunnel request: {0}")]
    Request(Arc<h2::Error>),
    /// The peer did not answer in time.
    #[error("peer did not answer the tunnel request in time")]
    Deadline,
    /// The peer said no.
    #[error("peer refused the tunnel with status {0}")]
    Refused(StatusCode),
    /// An authority or header that HTTP cannot carry.
    #[error("tunnel request: {0}")]
    Malformed(Arc<http::Error>),
}

/// Waiters share one attempt, so they share its outcome.
impl<E> Clone for OpenError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Dial(error) => Self::Dial(Arc::clone(error)),
            Self::Handshake(error) => Self::Handshake(Arc::clone(error)),
            Self::Request(error) => Self::Request(Arc::clone(error)),
            Self::Deadline => Self::Deadline,
            Self::Refused(status) => Self::Refused(*status),
            Self::Malformed(error) => Self::Malformed(Arc::clone(error)),
        }
    }
}
