//! Bytes between an application's socket and a tunnel stream.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::backlog::Backlog;
use super::stream::TunnelStream;

/// One read from the application, and so one DATA frame.
const CHUNK: usize = 64 << 10;

/// A read buffer with less room than this is replaced.
const SMALLEST_READ: usize = 8 << 10;

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
    /// The peer, or the connection to it.
    #[error("tunnel side: {0}")]
    Tunnel(#[source] h2::Error),
}

/// Moves bytes both ways until both ends have finished, each direction on its own: a FIN
/// becomes END_STREAM and the other way round. `moved` hears of every chunk.
///
/// On an error, and when the future is dropped, the stream is reset; the caller must
/// then reset `tcp` too instead of closing it, or the application would take the torn
/// stream for a finished one.
///
/// # Errors
/// [`PumpError`]. A stream that the peer resets with "no error" or "cancelled" has
/// ended: that is how HTTP/2 peers leave a stream that they have finished with. One whose
/// connection goes away before its end was torn, whatever the GOAWAY says.
pub async fn pump(
    tcp: &TcpStream,
    mut tunnel: TunnelStream,
    moved: impl Fn(Flow, u64),
) -> Result<(), PumpError> {
    tokio::try_join!(
        into_tunnel(tcp, &mut tunnel.send, |n| moved(Flow::IntoTunnel, n)),
        out_of_tunnel(&mut tunnel.recv, tcp, |n| moved(Flow::OutOfTunnel, n)),
    )?;
    tunnel.ended = true;
    Ok(())
}

/// While the application is silent neither buffer nor window is held: an idle stream
/// must not keep the connection's capacity from the others.
async fn into_tunnel(
    tcp: &TcpStream,
    tunnel: &mut SendStream<Bytes>,
    moved: impl Fn(u64),
) -> Result<(), PumpError> {
    loop {
        tokio::select! {
            ready = tcp.readable() => ready.map_err(PumpError::Application)?,
            reset = poll_fn(|cx| tunnel.poll_reset(cx)) => return ended_by(reset),
        }
        match drain_readable(tcp, tunnel, &moved).await? {
            Turn::Idle => tunnel.reserve_capacity(0),
            Turn::Finished => return Ok(()),
        }
    }
}

enum Turn {
    Idle,
    Finished,
}

/// Reads until there is nothing more right now.
async fn drain_readable(
    tcp: &TcpStream,
    tunnel: &mut SendStream<Bytes>,
    moved: &impl Fn(u64),
) -> Result<Turn, PumpError> {
    let mut buffer = BytesMut::new();
    loop {
        tokio::task::consume_budget().await;
        // Capacity first: what is read must not wait in memory for a slow peer.
        let Some(room) = capacity(tunnel).await? else {
            return Ok(Turn::Finished);
        };
        if buffer.capacity() < SMALLEST_READ {
            buffer.reserve(CHUNK);
        }
        match tcp.try_read_buf(&mut (&mut buffer).limit(room.min(CHUNK))) {
            Ok(0) => {
                tunnel.send_data(Bytes::new(), true).map_err(PumpError::Tunnel)?;
                return Ok(Turn::Finished);
            }
            Ok(read) => {
                tunnel.send_data(buffer.split().freeze(), false).map_err(PumpError::Tunnel)?;
                moved(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Idle),
            Err(error) => return Err(PumpError::Application(error)),
        }
    }
}

/// Bytes that may be sent now, at least one; `None` when the peer wants no more.
async fn capacity(tunnel: &mut SendStream<Bytes>) -> Result<Option<usize>, PumpError> {
    tunnel.reserve_capacity(CHUNK);
    loop {
        let room = tunnel.capacity();
        if room > 0 {
            return Ok(Some(room));
        }
        match poll_fn(|cx| tunnel.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return ended(error).map(|()| None),
            None => {
                let reset = poll_fn(|cx| tunnel.poll_reset(cx)).await;
                return ended_by(reset).map(|()| None);
            }
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
    while open || !backlog.is_empty() {
        tokio::select! {
            biased;
            ready = tcp.writable(), if !backlog.is_empty() => {
                ready.map_err(PumpError::Application)?;
            }
            data = tunnel.data(), if open => match data {
                Some(Ok(chunk)) => backlog.push(chunk),
                Some(Err(error)) => {
                    ended(error)?;
                    open = false;
                }
                None => open = false,
            },
        }
        let written = write_some(&mut backlog, tcp)?;
        if written > 0 {
            moved(written as u64);
            // Fails only for a stream that is gone, which the next read tells.
            let _ = tunnel.flow_control().release_capacity(written);
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

/// Is this error the peer's way to say that it has finished?
fn ended(error: h2::Error) -> Result<(), PumpError> {
    let from_peer = error.is_remote() && error.is_reset();
    match error.reason() {
        Some(reason) if from_peer && is_end(reason) => Ok(()),
        _ => Err(PumpError::Tunnel(error)),
    }
}

fn ended_by(reset: Result<Reason, h2::Error>) -> Result<(), PumpError> {
    match reset {
        Ok(reason) if is_end(reason) => Ok(()),
        Ok(reason) => Err(PumpError::Tunnel(reason.into())),
        Err(error) => ended(error),
    }
}

fn is_end(reason: Reason) -> bool {
    matches!(reason, Reason::NO_ERROR | Reason::CANCEL)
}
