//! Bytes between an application's socket and a tunnel stream.
//!
//! Written as polls: what a connection keeps while it is idle is what stands in [`Pump`].

mod into_tunnel;
mod out_of_tunnel;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use h2::Reason;
use tokio::net::TcpStream;

use super::stream::TunnelStream;
use crate::broken::Broken;
use into_tunnel::IntoTunnel;
use out_of_tunnel::OutOfTunnel;

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
    /// By an error. Boxed: few connections have one, and every one would keep room for it.
    Cut(Box<h2::Error>),
}

impl Sent {
    fn cut(error: impl Into<h2::Error>) -> Self {
        Self::Cut(Box::new(error.into()))
    }

    /// What the peer's reset says about what it was sent.
    fn stopped(reset: Result<Reason, h2::Error>) -> Self {
        match reset {
            Ok(Reason::NO_ERROR | Reason::CANCEL) => Self::Unwanted,
            Ok(reason) => Self::cut(reason),
            Err(error) => Self::cut(error),
        }
    }
}

/// Moves bytes both ways until both ends have finished, each direction on its own: a FIN
/// becomes END_STREAM and the other way round. `moved` hears of every chunk.
///
/// After an error, and when it is dropped, `tunnel` has not ended and is reset with its
/// own drop; the caller must then reset `tcp` too instead of closing it, or the
/// application would take the torn stream for a finished one.
///
/// # Errors
/// [`PumpError`]. Only END_STREAM ends what the application receives. A reset before it
/// tears the stream, also one with "no error" or "cancelled", and so does the end of the
/// connection, whatever its GOAWAY says. After it, what was received stays whole: "no
/// error" and "cancelled" end the other direction too, other resets cut it, which is told
/// when everything has arrived. An application that resets is noticed whatever the pump is
/// waiting for.
pub fn pump<'a, Moved: Fn(Flow, u64) + Unpin>(
    tcp: &'a TcpStream,
    tunnel: &'a mut TunnelStream,
    moved: Moved,
) -> Pump<'a, Moved> {
    let (into_tunnel, out_of_tunnel) = (IntoTunnel::default(), OutOfTunnel::default());
    Pump { tcp, tunnel, moved, into_tunnel, out_of_tunnel, broken: Broken::default() }
}

/// See [`pump()`].
#[must_use = "nothing is moved unless it is polled"]
pub struct Pump<'a, Moved> {
    tcp: &'a TcpStream,
    tunnel: &'a mut TunnelStream,
    moved: Moved,
    into_tunnel: IntoTunnel,
    out_of_tunnel: OutOfTunnel,
    broken: Broken<'a>,
}

impl<Moved> std::fmt::Debug for Pump<'_, Moved> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("tcp", self.tcp).finish_non_exhaustive()
    }
}

/// What one direction waits for.
enum Waits {
    /// Bytes of the application, or its end.
    Application,
    /// Its next turn, which comes by itself and soon.
    Turn,
    /// Something of the tunnel.
    Tunnel,
    /// Nothing: it has finished.
    Finished,
}

impl<Moved: Fn(Flow, u64) + Unpin> Future for Pump<'_, Moved> {
    type Output = Result<(), PumpError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { tcp, tunnel, moved, into_tunnel, out_of_tunnel, broken } = self.get_mut();
        let into = into_tunnel.poll(tcp, &mut tunnel.send, |n| moved(Flow::IntoTunnel, n), cx)?;
        let out = out_of_tunnel.poll(&mut tunnel.recv, tcp, |n| moved(Flow::OutOfTunnel, n), cx)?;
        match into {
            Waits::Application => broken.rest(),
            Waits::Turn => {}
            Waits::Finished if out.is_ready() => {
                let sent = into_tunnel.sent();
                tunnel.ended = sent.is_ok();
                return Poll::Ready(sent);
            }
            Waits::Finished | Waits::Tunnel => {
                let error = ready!(broken.poll(tcp, cx));
                return Poll::Ready(Err(PumpError::Application(error)));
            }
        }
        Poll::Pending
    }
}

/// Lets others have their turn before the next poll.
fn give_way(cx: &mut Context<'_>) {
    // The first poll asks for the next one.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}
