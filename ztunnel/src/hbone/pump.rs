//! Bytes between an application's socket and a tunnel stream.

use std::future::poll_fn;
use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::backlog::Backlog;
use super::chunk::{Chunk, Waiting};
use super::stream::TunnelStream;
use crate::buffers::{Buffer, Size};

/// Bytes moved one way before others get a turn.
const TURN: usize = 256 << 10;

/// The direction of bytes that were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From the application into the tunnel.
    IntoTunnel,
    /// From the tunnel to the application.
    OutOfTunnel,
}

/// Which side tore the connection.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The application, or the kernel on its behalf.
    #[error("application side: {0}")]
    Application(#[source] io::Error),
    /// The peer, or the connection to it, takes no more of what the application sends.
    #[error("tunnel side: {0}")]
    Tunnel(#[source] h2::Error),
    /// The peer never said that it was finished: what the application got is not all.
    #[error("tunnel side, torn before its end: {0}")]
    Torn(#[source] h2::Error),
}

/// How the direction into the tunnel has ended.
#[derive(Debug)]
enum Sent {
    /// With the application's FIN.
    All,
    /// The peer has said everything, and does not want to hear the rest: that is how HTTP/2
    /// peers leave a stream that they have finished with.
    Unwanted,
    /// By an error.
    Cut(h2::Error),
}

/// Moves bytes both ways until both ends have finished, each direction on its own: a FIN
/// becomes END_STREAM and the other way round. `moved` hears of every chunk.
///
/// On an error, and when the future is dropped, the stream is reset; the caller must
/// then reset `tcp` too instead of closing it, or the application would take the torn
/// stream for a finished one.
///
/// # Errors
/// [`PumpError`]. Only END_STREAM ends what the application receives. A reset before it
/// tears the stream, also one with "no error" or "cancelled", and so does the end of the
/// connection, whatever its GOAWAY says. After it, what was received stays whole: "no
/// error" and "cancelled" end the other direction too, other resets cut it.
pub async fn pump(
    tcp: &TcpStream,
    mut tunnel: TunnelStream,
    moved: impl Fn(Flow, u64),
) -> Result<(), PumpError> {
    // What cuts one direction is told only when the other has arrived.
    let (sent, ()) = tokio::try_join!(
        into_tunnel(tcp, &mut tunnel.send, |n| moved(Flow::IntoTunnel, n)),
        out_of_tunnel(&mut tunnel.recv, tcp, |n| moved(Flow::OutOfTunnel, n)),
    )?;
    if let Sent::Cut(error) = sent {
        return Err(PumpError::Tunnel(error));
    }
    tunnel.ended = true;
    Ok(())
}

/// While the application is silent neither buffer nor window is held: an idle stream
/// must not keep the connection's capacity from the others.
async fn into_tunnel(
    tcp: &TcpStream,
    tunnel: &mut SendStream<Chunk>,
    moved: impl Fn(u64),
) -> Result<Sent, PumpError> {
    let mut waiting: Option<Arc<Waiting>> = None;
    let mut size = Size::Record;
    loop {
        tokio::select! {
            ready = tcp.readable() => ready.map_err(PumpError::Application)?,
            reset = poll_fn(|cx| tunnel.poll_reset(cx)) => return Ok(stopped(reset)),
        }
        let counted = waiting.get_or_insert_default();
        match drain_readable(tcp, tunnel, counted, &mut size, &moved).await? {
            Turn::Over => tokio::task::yield_now().await,
            Turn::Idle => {
                tunnel.reserve_capacity(0);
                waiting = waiting.filter(|waiting| !waiting.is_empty());
            }
            Turn::Finished(sent) => return Ok(sent),
        }
    }
}

enum Turn {
    /// There may be more.
    Over,
    Idle,
    Finished(Sent),
}

/// Reads until there is nothing more right now, or enough for one turn: each read is one
/// frame. Reads that fill their buffer make the next one larger.
async fn drain_readable(
    tcp: &TcpStream,
    tunnel: &mut SendStream<Chunk>,
    waiting: &Arc<Waiting>,
    size: &mut Size,
    moved: &impl Fn(u64),
) -> Result<Turn, PumpError> {
    let mut buffer = None;
    let mut read_in_turn = 0;
    while read_in_turn < TURN {
        // Capacity first: what is read must not wait in memory for a slow peer.
        let most = frame(*size);
        if tunnel.capacity() == 0 {
            buffer = None;
        }
        let room = match capacity(tunnel, most).await {
            Ok(room) => room,
            Err(sent) => return Ok(Turn::Finished(sent)),
        };
        let place = poll_fn(|cx| waiting.poll_place(cx)).await;
        let space = &mut buffer.get_or_insert_with(|| Buffer::new(*size))[..room.min(most)];
        let asked = space.len();
        let read = match read_now(tcp, space) {
            Ok(0) => {
                let sent = tunnel.send_data(Chunk::default(), true);
                return Ok(Turn::Finished(sent.map_or_else(|e| gone(tunnel, e), |()| Sent::All)));
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *size = smaller(*size);
                return Ok(Turn::Idle);
            }
            Err(error) => return Err(PumpError::Application(error)),
        };
        let chunk = Chunk::of_read(&mut buffer, read, place);
        if let Err(error) = tunnel.send_data(chunk, false) {
            return Ok(Turn::Finished(gone(tunnel, error)));
        }
        moved(read as u64);
        read_in_turn += read;
        if read < asked {
            // Drained: tokio knows, and waits for the kernel to report more.
            *size = if read < most / 4 { smaller(*size) } else { *size };
            return Ok(Turn::Idle);
        }
        if read == most {
            *size = larger(*size);
            buffer = None;
        }
    }
    Ok(Turn::Over)
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
async fn capacity(tunnel: &mut SendStream<Chunk>, wanted: usize) -> Result<usize, Sent> {
    tunnel.reserve_capacity(wanted);
    loop {
        let room = tunnel.capacity();
        if room > 0 {
            return Ok(room);
        }
        match poll_fn(|cx| tunnel.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Sent::Cut(error)),
            None => return Err(stopped(poll_fn(|cx| tunnel.poll_reset(cx)).await)),
        }
    }
}

/// Takes in whatever arrives, also while the application does not read: see
/// [`super::Settings::data_frame_budget`]. The peer is held back by its window, which
/// grows again only as the application reads.
async fn out_of_tunnel(
    tunnel: &mut RecvStream,
    tcp: &TcpStream,
    moved: impl Fn(u64),
) -> Result<(), PumpError> {
    let mut backlog = Backlog::default();
    let mut open = true;
    let mut written_in_turn = 0;
    while open || !backlog.is_empty() {
        tokio::select! {
            biased;
            ready = tcp.writable(), if !backlog.is_empty() => {
                ready.map_err(PumpError::Application)?;
            }
            data = tunnel.data(), if open => match data {
                Some(Ok(chunk)) => backlog.push(chunk),
                Some(Err(error)) => return Err(PumpError::Torn(error)),
                None => open = false,
            },
        }
        let written = write_some(&mut backlog, tcp)?;
        if written > 0 {
            moved(written as u64);
            // Fails only for a stream that is gone, which the next read tells.
            let _ = tunnel.flow_control().release_capacity(written);
        }
        written_in_turn += written;
        if written_in_turn >= TURN {
            written_in_turn = 0;
            tokio::task::yield_now().await;
        }
    }
    match SockRef::from(tcp).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
            Err(PumpError::Application(error))
        }
        _ => Ok(()),
    }
}

fn write_some(backlog: &mut Backlog, tcp: &TcpStream) -> Result<usize, PumpError> {
    if backlog.is_empty() {
        return Ok(0);
    }
    match backlog.write_with(|slices| tcp.try_write_vectored(slices)) {
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(PumpError::Application(error)),
    }
}

/// What the peer's reset says about what it was sent.
fn stopped(reset: Result<Reason, h2::Error>) -> Sent {
    match reset {
        Ok(Reason::NO_ERROR | Reason::CANCEL) => Sent::Unwanted,
        Ok(reason) => Sent::Cut(reason.into()),
        Err(error) => Sent::Cut(error),
    }
}

/// The stream has ended since its capacity was looked at: `error` says so, a reset why.
fn gone(tunnel: &mut SendStream<Chunk>, error: h2::Error) -> Sent {
    match tunnel.poll_reset(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reset) => stopped(reset),
        Poll::Pending => Sent::Cut(error),
    }
}
