//! From the application into the tunnel.

use std::io::{self, Read};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use h2::SendStream;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::super::chunk::{Chunk, Waiting};
use super::{PumpError, Sent, TURN, Waits, give_way};
use crate::buffers::{Buffer, Size};

/// While the application is silent neither buffer nor window is held: an idle stream
/// must not keep the connection's capacity from the others.
pub(super) struct IntoTunnel {
    /// Kept while chunks wait for the connection.
    waiting: Option<Arc<Waiting>>,
    /// Of the next read.
    size: Size,
    /// How it has ended, once it has.
    sent: Option<Sent>,
}

impl Default for IntoTunnel {
    fn default() -> Self {
        Self { waiting: None, size: Size::Record, sent: None }
    }
}

enum Turn {
    /// There may be more.
    Over,
    Idle,
    Finished(Sent),
}

impl IntoTunnel {
    /// Moves what there is, and tells what it waits for next.
    pub(super) fn poll(
        &mut self,
        tcp: &TcpStream,
        tunnel: &mut SendStream<Chunk>,
        moved: impl Fn(u64),
        cx: &mut Context<'_>,
    ) -> Result<Waits, PumpError> {
        if self.sent.is_some() {
            return Ok(Waits::Finished);
        }
        loop {
            if let Poll::Ready(reset) = tunnel.poll_reset(cx) {
                return Ok(self.finish(Sent::stopped(reset)));
            }
            match tcp.poll_read_ready(cx) {
                Poll::Pending => return Ok(Waits::Application),
                Poll::Ready(ready) => ready.map_err(PumpError::Application)?,
            }
            match self.drain_readable(tcp, tunnel, &moved, cx) {
                Poll::Pending => return Ok(Waits::Tunnel),
                Poll::Ready(turn) => match turn? {
                    Turn::Over => {
                        give_way(cx);
                        return Ok(Waits::Turn);
                    }
                    Turn::Idle => {
                        tunnel.reserve_capacity(0);
                        self.waiting.take_if(|waiting| waiting.is_empty());
                    }
                    Turn::Finished(sent) => return Ok(self.finish(sent)),
                },
            }
        }
    }

    /// How it has ended. An error: the peer did not take everything.
    pub(super) fn sent(&mut self) -> Result<(), PumpError> {
        match self.sent.take() {
            Some(Sent::Cut(error)) => Err(PumpError::Tunnel(*error)),
            Some(Sent::All | Sent::Unwanted) | None => Ok(()),
        }
    }

    fn finish(&mut self, sent: Sent) -> Waits {
        self.sent = Some(sent);
        Waits::Finished
    }

    /// Reads until there is nothing more right now, or enough for one turn: each read is
    /// one frame. Reads that fill their buffer make the next one larger.
    fn drain_readable(
        &mut self,
        tcp: &TcpStream,
        tunnel: &mut SendStream<Chunk>,
        moved: &impl Fn(u64),
        cx: &mut Context<'_>,
    ) -> Poll<Result<Turn, PumpError>> {
        let mut buffer = None;
        let mut read_in_turn = 0;
        while read_in_turn < TURN {
            // Capacity first: what is read must not wait in memory for a slow peer.
            let most = frame(self.size);
            let room = match ready!(poll_capacity(tunnel, most, cx)) {
                Ok(room) => room,
                Err(sent) => return Poll::Ready(Ok(Turn::Finished(sent))),
            };
            let place = ready!(self.waiting.get_or_insert_default().poll_place(cx));
            let space = &mut buffer.get_or_insert_with(|| Buffer::new(self.size))[..room.min(most)];
            let asked = space.len();
            let read = match read_now(tcp, space) {
                Ok(0) => {
                    let sent = tunnel.send_data(Chunk::default(), true);
                    let sent = sent.map_or_else(|error| gone(tunnel, error), |()| Sent::All);
                    return Poll::Ready(Ok(Turn::Finished(sent)));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.size = smaller(self.size);
                    return Poll::Ready(Ok(Turn::Idle));
                }
                Err(error) => return Poll::Ready(Err(PumpError::Application(error))),
            };
            let chunk = Chunk::of_read(&mut buffer, read, place);
            if let Err(error) = tunnel.send_data(chunk, false) {
                return Poll::Ready(Ok(Turn::Finished(gone(tunnel, error))));
            }
            moved(read as u64);
            read_in_turn += read;
            if read < asked {
                // Drained: tokio knows, and waits for the kernel to report more.
                self.size = if read < most / 4 { smaller(self.size) } else { self.size };
                return Poll::Ready(Ok(Turn::Idle));
            }
            if read == most {
                self.size = larger(self.size);
                buffer = None;
            }
        }
        Poll::Ready(Ok(Turn::Over))
    }
}

/// Reads once. A read that leaves room has drained the socket; saying so within the call
/// spares the next read, which would only find that out.
fn read_now(tcp: &TcpStream, space: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let result = tcp.try_io(Interest::READABLE, || {
        let read = (&*SockRef::from(tcp)).read(space)?;
        if read > 0 && read < space.len() {
            short = Some(read);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read)
    });
    short.map_or(result, Ok)
}

/// Bytes of one frame.
const fn frame(size: Size) -> usize {
    match size {
        Size::Record => 16 << 10,
        Size::Medium => 64 << 10,
        Size::Large | Size::Huge => 256 << 10,
    }
}

fn larger(size: Size) -> Size {
    if size == Size::Record { Size::Medium } else { Size::Large }
}

fn smaller(size: Size) -> Size {
    if size == Size::Large { Size::Medium } else { Size::Record }
}

/// Bytes that may be sent now, at least one; or why none will ever be.
fn poll_capacity(
    tunnel: &mut SendStream<Chunk>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Sent>> {
    tunnel.reserve_capacity(wanted);
    loop {
        let room = tunnel.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(tunnel.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(Sent::cut(error))),
            None => return Poll::Ready(Err(Sent::stopped(ready!(tunnel.poll_reset(cx))))),
        }
    }
}

/// The stream has ended since its capacity was looked at: `error` says so, a reset why.
fn gone(tunnel: &mut SendStream<Chunk>, error: h2::Error) -> Sent {
    match tunnel.poll_reset(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reset) => Sent::stopped(reset),
        Poll::Pending => Sent::cut(error),
    }
}
