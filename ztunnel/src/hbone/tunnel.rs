//! One connection to a peer, as a client.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::keepalive::keep_alive;
use super::stream::TunnelStream;
use super::{Connect, OpenError, Settings};

/// A header list that a peer's answer may have.
const HEADER_LIST: u32 = 16 << 10;

/// Bytes that one stream may have waiting for the connection.
const SEND_BUFFER: usize = 4 << 20;

/// The shared part: where new streams come from.
#[derive(Debug)]
pub(super) struct Tunnel {
    send: SendRequest<Bytes>,
    most_streams: usize,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    active: usize,
    retired: bool,
    idle_since: Instant,
}

/// One place among the streams of a connection.
#[derive(Debug)]
pub(super) struct Claim {
    tunnel: Arc<Tunnel>,
}

/// Starts HTTP/2 on `io`. The future that is returned drives the connection; it ends
/// with it, and must be spawned.
pub(super) async fn handshake<Io, E, Released>(
    io: Io,
    settings: &Settings,
    released: Released,
) -> Result<(Arc<Tunnel>, impl Future<Output = ()> + Send + use<Io, E, Released>), OpenError<E>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Released: FnOnce() + Send + 'static,
{
    let (send, connection) = timeout(settings.response_deadline, builder(settings).handshake(io))
        .await
        .map_err(|_| OpenError::Deadline)?
        .map_err(|error| OpenError::Handshake(Arc::new(error)))?;
    let usage = Usage { active: 0, retired: false, idle_since: Instant::now() };
    let tunnel = Arc::new(Tunnel {
        send,
        most_streams: settings.streams_per_connection,
        usage: Mutex::new(usage),
    });
    let driver = drive(connection, Arc::downgrade(&tunnel), settings.clone(), released);
    Ok((tunnel, driver))
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(settings.data_frame_budget())
        .enable_push(false);
    builder
}

/// Ends with the connection, when the peer falls silent, or when it was idle for long.
async fn drive<Io>(
    mut connection: Connection<Io, Bytes>,
    tunnel: std::sync::Weak<Tunnel>,
    settings: Settings,
    released: impl FnOnce(),
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pings = connection.ping_pong().expect("taken once per connection");
    let mut released = Some(released);
    let retire_if_idle = || {
        let idle = tunnel.upgrade().is_some_and(|t| t.retire_if_idle(settings.idle_release));
        if idle && let Some(released) = released.take() {
            released();
        }
    };
    tokio::select! {
        result = connection => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel connection ended");
            }
        }
        () = keep_alive(pings, &settings, retire_if_idle) => {
            tracing::info!("tunnel peer does not answer, connection dropped");
        }
    }
    if let Some(tunnel) = tunnel.upgrade() {
        tunnel.retire();
    }
    if let Some(released) = released.take() {
        released();
    }
}

impl Tunnel {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if there is one.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let limit = self.most_streams.min(self.send.current_max_send_streams()).max(1);
        let mut usage = self.usage();
        if usage.retired || usage.active >= limit {
            return None;
        }
        usage.active += 1;
        Some(Claim { tunnel: Arc::clone(self) })
    }

    /// Gives out no more places; streams that are open go on.
    pub(super) fn retire(&self) {
        self.usage().retired = true;
    }

    fn retire_if_idle(&self, after: Duration) -> bool {
        let mut usage = self.usage();
        let idle = usage.active == 0 && usage.idle_since.elapsed() >= after;
        usage.retired |= idle;
        idle
    }
}

impl Claim {
    /// Asks for a stream. The flag tells whether another connection may be tried: the
    /// peer did not look at the request.
    pub(super) async fn open<E>(
        self,
        connect: &Connect,
        deadline: Duration,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let request = build(connect).map_err(|e| (OpenError::Malformed(Arc::new(e)), Retry::No))?;
        timeout(deadline, self.exchange(request))
            .await
            .unwrap_or(Err((OpenError::Deadline, Retry::No)))
    }

    async fn exchange<E>(
        self,
        request: Request<()>,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let failed = |retry| move |error| (OpenError::Request(Arc::new(error)), retry);
        let ready = self.tunnel.send.clone().ready().await;
        let mut send = ready.inspect_err(|_| self.tunnel.retire()).map_err(failed(Retry::Yes))?;
        let (answer, stream) = send.send_request(request, false).map_err(failed(Retry::Yes))?;
        let answer = answer.await.map_err(|error| {
            let unseen = error.is_go_away()
                || error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_remote();
            if unseen {
                self.tunnel.retire();
            }
            failed(if unseen { Retry::Yes } else { Retry::No })(error)
        })?;
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err((OpenError::Refused(head.status), Retry::No));
        }
        Ok((TunnelStream::new(stream, body, Some(self)), head.headers))
    }
}

/// May the same request be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Yes,
    No,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut usage = self.tunnel.usage();
        usage.active -= 1;
        usage.idle_since = Instant::now();
    }
}

fn build(connect: &Connect) -> Result<Request<()>, http::Error> {
    let uri = Uri::builder().authority(connect.authority.as_str()).build()?;
    let mut request =
        Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri).body(())?;
    *request.headers_mut() = connect.headers.clone();
    Ok(request)
}
