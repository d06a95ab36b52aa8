//! One connection from a peer, as a server.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::chunk::Chunk;
use super::cork::{Cork, corked};
use super::keepalive::{Keepalive, Pulse};
use super::stream::TunnelStream;
use super::{LATE_FRAMES, PEER_ERRORS, Settings};

/// A header list that a request may have.
const HEADER_LIST: u32 = 64 << 10;

/// Streams that a client may have opened and reset before we have looked at them: more
/// is a flood of resets, which ends the connection. Requests are taken as they come, so an
/// honest client that gives up early stays far below.
const RESET_BEFORE_SEEN: usize = 20;

/// Bytes that one stream may have waiting for the connection.
const SEND_BUFFER: usize = 400 << 10;

/// Requests handed out before answers to earlier ones, and credit, are sent.
const MOST_UNSENT: usize = 16;

/// Why a peer's connection ended otherwise than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The client did not begin with HTTP/2 in time.
    #[error("client did not begin HTTP/2 in time")]
    Deadline,
    /// It broke the protocol, or the connection broke.
    #[error("HTTP/2: {0}")]
    Http(#[source] h2::Error),
    /// The connection broke while something was sent.
    #[error("send: {0}")]
    Socket(#[source] io::Error),
    /// It did not answer PINGs, and nothing else came, or that for very long.
    #[error("client does not answer")]
    Silent,
}

/// The server's end of a connection. Streams live only while [`ServerTunnel::next`] is
/// being polled.
pub struct ServerTunnel<Io> {
    connection: Connection<Cork<Io>, Chunk>,
    cork: Cork<Io>,
    keepalive: Keepalive,
    /// Requests handed out since something was sent.
    unsent: usize,
}

impl<Io> std::fmt::Debug for ServerTunnel<Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTunnel")
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> ServerTunnel<Io> {
    /// Starts HTTP/2 on `io`.
    ///
    /// # Errors
    /// [`ServerError::Deadline`], [`ServerError::Http`].
    pub async fn accept(
        io: Io,
        settings: &Settings,
        deadline: Duration,
    ) -> Result<Self, ServerError> {
        let cork = Cork::new(io);
        let started = corked(&cork, builder(settings).handshake(cork.clone()));
        let mut connection = timeout(deadline, Box::pin(started))
            .await
            .map_err(|_| ServerError::Deadline)?
            .map_err(ServerError::Http)?;
        let pings = connection.ping_pong().expect("taken once per connection");
        let keepalive = Keepalive::new(pings, Arc::clone(cork.line()), settings);
        Ok(Self { connection, cork, keepalive, unsent: 0 })
    }

    /// The next request; `None` when the connection has ended by agreement. May be
    /// dropped and called again.
    ///
    /// # Errors
    /// [`ServerError::Http`], [`ServerError::Socket`], [`ServerError::Silent`];
    /// afterwards the connection is of no more use.
    pub async fn next(&mut self) -> Result<Option<Incoming>, ServerError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, ServerError>> {
        while let Poll::Ready(pulse) = self.keepalive.poll(cx) {
            if pulse == Pulse::Silent {
                return Poll::Ready(Err(ServerError::Silent));
            }
        }
        let accepted = pin!(self.connection.accept()).poll(cx);
        let next = match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => Ok(Some(Incoming { request, respond })),
            Poll::Ready(Some(Err(error))) => Err(ServerError::Http(error)),
            Poll::Ready(None) => Ok(None),
            Poll::Pending => return self.poll_send(cx).map(Err),
        };
        self.unsent += 1;
        if self.unsent >= MOST_UNSENT {
            let _ = self.poll_send(cx);
        }
        Poll::Ready(next)
    }

    /// Sends what this turn brought. Never ready, but with an error.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<ServerError> {
        self.unsent = 0;
        match self.cork.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(ServerError::Socket(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Takes no more requests; the streams that are open go on, and when they have
    /// finished the connection ends.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

fn builder(settings: &Settings) -> Builder {
    let streams = settings.concurrent_streams;
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(settings.data_frame_budget())
        .max_pending_accept_reset_streams(RESET_BEFORE_SEEN)
        .max_concurrent_reset_streams(usize::try_from(streams).unwrap_or(usize::MAX))
        .reset_stream_duration(LATE_FRAMES)
        .max_local_error_reset_streams(Some(PEER_ERRORS));
    builder
}

/// A request that waits for an answer.
#[derive(Debug)]
pub struct Incoming {
    request: Request<RecvStream>,
    respond: SendResponse<Chunk>,
}

impl Incoming {
    /// The target of a CONNECT; `None` for any other request.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        let connect = self.request.method() == Method::CONNECT;
        self.request.uri().authority().filter(|_| connect).map(http::uri::Authority::as_str)
    }

    /// What came along. Nothing in it is proved.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// Says no.
    pub fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // Fails only if the client is gone.
        let _ = self.respond.send_response(response, true);
    }

    /// Says yes.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn accept(mut self, headers: HeaderMap) -> Result<TunnelStream, h2::Error> {
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let send = self.respond.send_response(response, false)?;
        Ok(TunnelStream::new(send, self.request.into_body(), None))
    }
}
