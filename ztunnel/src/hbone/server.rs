//! One connection from a peer, as a server.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Settings;
use super::keepalive::keep_alive;
use super::stream::TunnelStream;

/// A header list that a request may have.
const HEADER_LIST: u32 = 64 << 10;

/// Bytes that one stream may have waiting for the connection.
const SEND_BUFFER: usize = 400 << 10;

/// Why a peer's connection ended otherwise than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The client did not begin with HTTP/2 in time.
    #[error("client did not begin HTTP/2 in time")]
    Deadline,
    /// It broke the protocol, or the connection broke.
    #[error("HTTP/2: {0}")]
    Http(#[source] h2::Error),
    /// It did not answer PINGs.
    #[error("client does not answer")]
    Silent,
}

/// The server's end of a connection. Streams live only while [`ServerTunnel::next`] is
/// being polled.
pub struct ServerTunnel<Io> {
    connection: Connection<Io, Bytes>,
    silent: Pin<Box<dyn Future<Output = ()> + Send>>,
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
        let mut connection = timeout(deadline, builder(settings).handshake(io))
            .await
            .map_err(|_| ServerError::Deadline)?
            .map_err(ServerError::Http)?;
        let pings = connection.ping_pong().expect("taken once per connection");
        let settings = settings.clone();
        let silent = Box::pin(async move { keep_alive(pings, &settings, || ()).await });
        Ok(Self { connection, silent })
    }

    /// The next request; `None` when the connection has ended by agreement. May be
    /// dropped and called again.
    ///
    /// # Errors
    /// [`ServerError::Http`], [`ServerError::Silent`]; afterwards the connection is of
    /// no more use.
    pub async fn next(&mut self) -> Result<Option<Incoming>, ServerError> {
        tokio::select! {
            request = self.connection.accept() => match request {
                None => Ok(None),
                Some(Ok((request, respond))) => Ok(Some(Incoming { request, respond })),
                Some(Err(error)) => Err(ServerError::Http(error)),
            },
            () = &mut self.silent => Err(ServerError::Silent),
        }
    }

    /// Takes no more requests; the streams that are open go on, and when they have
    /// finished the connection ends.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_concurrent_streams(settings.concurrent_streams)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(settings.data_frame_budget());
    builder
}

/// A request that waits for an answer.
#[derive(Debug)]
pub struct Incoming {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
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
