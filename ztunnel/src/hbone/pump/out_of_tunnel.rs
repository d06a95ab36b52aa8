//! From the tunnel to the application.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::super::backlog::Backlog;
use super::{PumpError, TURN, give_way};

/// Takes in whatever arrives, also while the application does not read: see
/// [`super::super::Settings::data_frame_budget`]. The peer is held back by its window,
/// which grows again only as the application reads.
pub(super) struct OutOfTunnel {
    /// What the application's socket did not take. Never empty.
    backlog: Option<Box<Backlog>>,
    state: State,
    written_in_turn: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The peer has sent everything.
    Ended,
    /// And the application has got it.
    Finished,
}

impl Default for OutOfTunnel {
    fn default() -> Self {
        Self { backlog: None, state: State::Open, written_in_turn: 0 }
    }
}

impl OutOfTunnel {
    /// Ready when it has finished.
    pub(super) fn poll(
        &mut self,
        tunnel: &mut RecvStream,
        tcp: &TcpStream,
        moved: impl Fn(u64),
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, PumpError> {
        while self.state == State::Open || self.backlog.is_some() {
            let Poll::Ready(written) = self.poll_write(tunnel, tcp, cx)? else {
                return Ok(Poll::Pending);
            };
            if written > 0 {
                moved(written as u64);
                // Fails only for a stream that is gone, which the next read tells.
                let _ = tunnel.flow_control().release_capacity(written);
            }
            if self.turn_is_over(written) {
                give_way(cx);
                return Ok(Poll::Pending);
            }
        }
        self.finish(tcp).map(|()| Poll::Ready(()))
    }

    /// Writes from the backlog if the socket takes more, else what comes next. Ready with
    /// the bytes that were written, perhaps none.
    fn poll_write(
        &mut self,
        tunnel: &mut RecvStream,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Result<Poll<usize>, PumpError> {
        if let Some(backlog) = &mut self.backlog {
            if let Poll::Ready(ready) = tcp.poll_write_ready(cx) {
                ready.map_err(PumpError::Application)?;
                let written = now(backlog.write_with(|slices| tcp.try_write_vectored(slices)))?;
                self.backlog.take_if(|backlog| backlog.is_empty());
                return Ok(Poll::Ready(written));
            }
            if self.state != State::Open {
                return Ok(Poll::Pending);
            }
        }
        let Poll::Ready(data) = tunnel.poll_data(cx) else { return Ok(Poll::Pending) };
        match data {
            Some(Ok(chunk)) => return self.pass_on(chunk, tcp).map(Poll::Ready),
            Some(Err(error)) => return Err(PumpError::Torn(error)),
            None => {}
        }
        self.state = State::Ended;
        Ok(Poll::Ready(0))
    }

    /// Straight to the socket, unless others wait there.
    fn pass_on(&mut self, mut chunk: Bytes, tcp: &TcpStream) -> Result<usize, PumpError> {
        let mut written = 0;
        if self.backlog.is_none() && !chunk.is_empty() {
            written = now(tcp.try_write(&chunk))?;
            chunk.advance(written);
        }
        if !chunk.is_empty() {
            self.backlog.get_or_insert_default().push(chunk);
        }
        Ok(written)
    }

    fn turn_is_over(&mut self, written: usize) -> bool {
        let in_turn =
            self.written_in_turn.saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
        let over = in_turn as usize >= TURN;
        self.written_in_turn = if over { 0 } else { in_turn };
        over
    }

    fn finish(&mut self, tcp: &TcpStream) -> Result<(), PumpError> {
        if self.state == State::Finished {
            return Ok(());
        }
        self.state = State::Finished;
        match SockRef::from(tcp).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                Err(PumpError::Application(error))
            }
            _ => Ok(()),
        }
    }
}

/// A socket that takes nothing right now takes no bytes.
fn now(written: io::Result<usize>) -> Result<usize, PumpError> {
    match written {
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(PumpError::Application(error)),
    }
}
