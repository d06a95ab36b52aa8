//! One connection to a peer, as a client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout};

use super::chunk::Chunk;
use super::claim::Claim;
use super::cork::{Cork, corked};
use super::keepalive::{Keepalive, Pulse};
use super::line::Line;
use super::{LATE_FRAMES, OpenError, PEER_ERRORS, Settings};

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
    pub(super) send: SendRequest<Chunk>,
    most_streams: usize,
    usage: Mutex<Usage>,
    pub(super) line: Arc<Line>,
    /// See [`Settings::doubt_after`].
    pub(super) doubt_after: Duration,
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
        Room::Place(Claim::new(self))
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

    /// A place is free again.
    pub(super) fn give_back(&self) {
        let mut usage = self.usage();
        usage.active -= 1;
        usage.idle_since = Instant::now();
    }

    fn retire_if_idle(&self, after: Duration) -> bool {
        let mut usage = self.usage();
        let idle = usage.active == 0 && usage.idle_since.elapsed() >= after;
        usage.retired |= idle;
        idle
    }
}
