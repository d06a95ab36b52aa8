//! One connection to a peer, as a client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout};

use super::chunk::Chunk;
use super::cork::{Cork, corked};
use super::keepalive::{Keepalive, Pulse};
use super::line::{Line, Silent};
use super::stream::TunnelStream;
use super::{Connect, LATE_FRAMES, OpenError, PEER_ERRORS, Settings};

/// A header list that a peer's answer may have.
const HEADER_LIST: u32 = 16 << 10;

/// Bytes that one stream may have waiting for the connection: our memory, filled by an
/// application and emptied only as the peer likes.
const SEND_BUFFER: usize = 1 << 20;

/// What h2 says as long as the peer has not: no limit that a peer can announce, nor that
/// of one which announces none.
const UNKNOWN_LIMIT: usize = usize::MAX - 1;

/// Streams before the peer has said how many it takes. Those above its limit would wait in
/// h2 for others to end, which may be never.
const FIRST_STREAMS: usize = 1;

/// The shared part: where new streams come from.
#[derive(Debug)]
pub(super) struct Tunnel {
    send: SendRequest<Chunk>,
    most_streams: usize,
    usage: Mutex<Usage>,
    line: Arc<Line>,
    doubt_after: Duration,
    /// Set when the peer has said how many streams it takes, or will never say.
    settled: SetOnce<()>,
}

/// What there is for a new stream.
#[derive(Debug)]
pub(super) enum Room {
    /// A place.
    Place(Claim),
    /// None until the peer has said how many there are, see [`Tunnel::settled`].
    Unsettled,
    /// Nothing.
    Full,
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
    let cork = Cork::new(io);
    let started = corked(&cork, builder(settings).handshake(cork.clone()));
    let (send, mut connection) = timeout(settings.response_deadline, Box::pin(started))
        .await
        .map_err(|_| OpenError::Deadline)?
        .map_err(|error| OpenError::Handshake(Arc::new(error)))?;
    let usage = Usage { active: 0, retired: false, idle_since: Instant::now() };
    let tunnel = Arc::new(Tunnel {
        send,
        most_streams: settings.streams_per_connection,
        usage: Mutex::new(usage),
        line: Arc::clone(cork.line()),
        doubt_after: settings.doubt_after,
        settled: SetOnce::new(),
    });
    let driver = Driver {
        keepalive: Keepalive::new(
            connection.ping_pong().expect("taken once per connection"),
            Arc::clone(cork.line()),
            settings,
        ),
        connection,
        cork,
        tunnel: Arc::downgrade(&tunnel),
        settled: false,
        idle_release: settings.idle_release,
        released: Some(released),
    };
    Ok((tunnel, driver.run()))
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
        .max_concurrent_reset_streams(settings.streams_per_connection)
        .reset_stream_duration(LATE_FRAMES)
        .max_local_error_reset_streams(Some(PEER_ERRORS))
        .initial_max_send_streams(UNKNOWN_LIMIT)
        .enable_push(false);
    builder
}

/// The one task of a connection.
struct Driver<Io, Released: FnOnce()> {
    connection: Connection<Cork<Io>, Chunk>,
    cork: Cork<Io>,
    keepalive: Keepalive,
    tunnel: Weak<Tunnel>,
    settled: bool,
    idle_release: Duration,
    released: Option<Released>,
}

impl<Io, Released> Driver<Io, Released>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    Released: FnOnce(),
{
    /// Ends with the connection, when the peer falls silent, or when it was idle for long.
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        if let Some(tunnel) = self.tunnel.upgrade() {
            tunnel.retire();
        }
        self.release();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(pulse) = self.keepalive.poll(cx) {
            match pulse {
                Pulse::Alive => self.release_if_idle(),
                Pulse::Silent => {
                    tracing::info!("tunnel peer does not answer, connection dropped");
                    return Poll::Ready(());
                }
            }
        }
        let ended: &dyn std::fmt::Display = match Pin::new(&mut self.connection).poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(()),
            Poll::Ready(Err(error)) => &error.to_string(),
            Poll::Pending => {
                self.settle();
                match self.cork.poll_send(cx) {
                    Poll::Ready(Err(error)) => &error.to_string(),
                    _ => return Poll::Pending,
                }
            }
        };
        tracing::debug!(error = %ended, "tunnel connection ended");
        Poll::Ready(())
    }

    /// Tells those who wait for the peer's SETTINGS that they have come.
    fn settle(&mut self) {
        if !self.settled {
            self.settled = self.tunnel.upgrade().is_none_or(|tunnel| tunnel.settle());
        }
    }

    fn release_if_idle(&mut self) {
        if self.tunnel.upgrade().is_some_and(|tunnel| tunnel.retire_if_idle(self.idle_release)) {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(released) = self.released.take() {
            released();
        }
    }
}

impl Tunnel {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if there is one.
    pub(super) fn claim(self: &Arc<Self>) -> Room {
        let known = self.limit();
        let limit = self.most_streams.min(known.unwrap_or(FIRST_STREAMS)).max(1);
        let mut usage = self.usage();
        if usage.retired {
            return Room::Full;
        }
        if usage.active >= limit {
            let more = known.is_none() && limit < self.most_streams;
            return if more { Room::Unsettled } else { Room::Full };
        }
        usage.active += 1;
        Room::Place(Claim { tunnel: Arc::clone(self) })
    }

    /// How many streams the peer takes, once it has said so.
    fn limit(&self) -> Option<usize> {
        Some(self.send.current_max_send_streams()).filter(|limit| *limit != UNKNOWN_LIMIT)
    }

    /// Has it? Then whoever waits for that is told.
    fn settle(&self) -> bool {
        let known = self.limit().is_some();
        if known {
            // Set already where it was retired.
            let _ = self.settled.set(());
        }
        known
    }

    /// Waits until the peer has said how many streams it takes; not for longer than it may
    /// take for an answer.
    pub(super) async fn settled<E>(&self, deadline: Duration) -> Result<(), OpenError<E>> {
        let settled = timeout(deadline, self.settled.wait()).await;
        settled.map(|_| ()).map_err(|_| {
            self.retire();
            OpenError::Deadline
        })
    }

    /// Gives out no more places; streams that are open go on.
    pub(super) fn retire(&self) {
        self.usage().retired = true;
        // Nobody has to wait for more of it.
        let _ = self.settled.set(());
    }

    fn retire_if_idle(&self, after: Duration) -> bool {
        let mut usage = self.usage();
        let idle = usage.active == 0 && usage.idle_since.elapsed() >= after;
        usage.retired |= idle;
        idle
    }
}

impl Claim {
    /// Asks for a stream, and waits for the answer until the deadline.
    pub(super) async fn open<E>(
        self,
        connect: &Connect,
        deadline: Duration,
        patience: Patience,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let request = build(connect).map_err(|e| (OpenError::Malformed(Arc::new(e)), Retry::No))?;
        timeout(deadline, self.exchange(request, patience))
            .await
            .unwrap_or(Err((OpenError::Deadline, Retry::No)))
    }

    async fn exchange<E>(
        self,
        request: Request<()>,
        patience: Patience,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let failed = |retry| move |error| (OpenError::Request(Arc::new(error)), retry);
        let ready = self.tunnel.send.clone().ready().await;
        let mut send = ready.inspect_err(|_| self.tunnel.retire()).map_err(failed(Retry::Yes))?;
        let (answer, stream) = send.send_request(request, false).map_err(failed(Retry::Yes))?;
        let Ok(answer) = self.answered(answer, patience).await else {
            self.tunnel.retire();
            return Err((OpenError::Deadline, Retry::Yes));
        };
        let answer = answer.map_err(|error| {
            let lost = error.is_io() || error.is_go_away();
            let retry = lost || error.reason() == Some(Reason::REFUSED_STREAM) && error.is_remote();
            if retry {
                self.tunnel.retire();
            }
            failed(if retry { Retry::Yes } else { Retry::No })(error)
        })?;
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err((OpenError::Refused(head.status), Retry::No));
        }
        Ok((TunnelStream::new(stream, body, Some(self)), head.headers))
    }

    async fn answered<T>(
        &self,
        answer: impl Future<Output = T>,
        patience: Patience,
    ) -> Result<T, Silent> {
        match patience {
            Patience::Long => Ok(answer.await),
            Patience::Short => {
                self.tunnel.line.unless_silent(self.tunnel.doubt_after, answer).await
            }
        }
    }
}

/// How a peer's silence is taken while its answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may have vanished. A mistake costs another connection, no more: open streams stay
    /// where they are, and whether they are lost is for the keep-alive to find out.
    Short,
    /// It is believed to be there until the deadline.
    Long,
}

/// May the same request be sent again, over another connection?
///
/// Where the peer did not look at it, of course. But also where nothing is known of its
/// fate, because the connection broke or fell silent: before the answer not a byte of the
/// application's is sent, so if the first request did reach the server, all it sees is a
/// connection on which nothing comes, as from a client that went away; any client of TCP
/// that tries again does the same. Not after an answer, nor when a peer that is alive does
/// not answer in time.
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
