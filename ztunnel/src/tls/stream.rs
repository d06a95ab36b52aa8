//! A secured connection, made for few and large system calls.
//!
//! ```text
//! write ─► staged (a record in clear) ─► sealed ─► socket     sent by flush, or when much waits
//! read  ◄─ opened (rest of a record)  ◄─ received ◄─ socket   256 KiB in one call
//! ```
//!
//! Idle, it holds no buffer.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream_buffers::{Clear, Incoming, Outgoing, Seen};
use super::stream_end::{Failure, PeerClosed, Reading, cut, invalid};
use super::stream_session::{Session, Step, Want};

/// Bytes in clear that make a full record.
const RECORD: usize = 16 << 10;

/// Sealed in one go, if it was written in one go.
const MOST_AT_ONCE: usize = 64 << 10;

/// Sealed bytes that may wait. Above, a writer waits for the socket.
const MOST_SEALED: usize = 1 << 20;

/// Bytes taken from the socket before others get a turn.
const TURN: usize = 1 << 20;

/// A connection whose handshake is done. A flush sends; a write only stages, until much
/// has come together. Reading tells apart a peer that has finished (end of stream) from
/// a connection that was cut ([`io::ErrorKind::UnexpectedEof`]); after a shutdown it
/// goes on.
pub struct Stream<Io> {
    io: Io,
    session: Session,
    incoming: Incoming,
    opened: Clear,
    staged: Clear,
    sealed: Outgoing,
    /// Taken from the socket in this turn.
    received: usize,
    reading: Reading,
    writing: Writing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// The peer has been told, or will be, that no more comes.
    Finished,
}

impl<Io> Stream<Io> {
    /// After the handshake: with what came behind it, sealed and already opened, and
    /// with what is still to be sent.
    pub(super) fn new(
        io: Io,
        session: Session,
        incoming: Incoming,
        opened: Clear,
        peer_closed: Option<PeerClosed>,
    ) -> Self {
        Self {
            io,
            session,
            incoming,
            opened,
            staged: Clear::default(),
            sealed: Outgoing::default(),
            received: 0,
            reading: peer_closed.map_or(Reading::Open, |PeerClosed| Reading::Ended),
            writing: Writing::Open,
        }
    }

    /// What was negotiated, and with whom.
    #[must_use]
    pub fn session(&self) -> &CommonState {
        self.session.common()
    }

    /// What is below.
    #[must_use]
    pub fn get_ref(&self) -> &Io {
        &self.io
    }

    /// Opens the next record. `None`: there is no whole one.
    fn open(&mut self, to: &mut ReadBuf<'_>) -> Result<Option<()>, rustls::Error> {
        while !self.incoming.is_empty() {
            let opened = &mut self.opened;
            let mut plain = |bytes: &[u8]| {
                let fits = if opened.len() == 0 { bytes.len().min(to.remaining()) } else { 0 };
                to.put_slice(&bytes[..fits]);
                opened.push(&bytes[fits..]);
            };
            let (discard, step) =
                self.session.step(self.incoming.all(), Want::Nothing, &mut plain, &mut self.sealed);
            // With plaintext in hand the session holds on to nothing behind it.
            let seen =
                if matches!(step, Ok(Step::Plaintext)) { Seen::Nothing } else { Seen::Everything };
            self.incoming.used(discard, seen);
            match step? {
                Step::Again => {}
                Step::Plaintext => return Ok(Some(())),
                Step::PeerClosed => {
                    self.reading = Reading::Ended;
                    return Ok(Some(()));
                }
                Step::Done | Step::Blocked => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Seals, or does whatever else is wanted.
    fn perform(&mut self, want: Want<'_>) -> io::Result<()> {
        loop {
            let opened = &mut self.opened;
            let mut plain = |bytes: &[u8]| opened.push(bytes);
            let (discard, step) =
                self.session.step(self.incoming.seen(), want, &mut plain, &mut self.sealed);
            self.incoming.used(discard, Seen::AsBefore);
            match step.map_err(invalid)? {
                Step::Done => return Ok(()),
                Step::PeerClosed => self.reading = Reading::Ended,
                Step::Again | Step::Plaintext => {}
                Step::Blocked => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    fn seal_staged(&mut self) -> io::Result<()> {
        let staged = std::mem::take(&mut self.staged);
        if staged.len() > 0 { self.perform(Want::Seal(staged.bytes())) } else { Ok(()) }
    }

    /// Takes the first bytes of `bytes` and tells how many.
    fn stage(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.staged.len() == 0 && bytes.len() >= RECORD {
            let whole = (bytes.len() - bytes.len() % RECORD).min(MOST_AT_ONCE);
            self.perform(Want::Seal(&bytes[..whole]))?;
            return Ok(whole);
        }
        let taken = bytes.len().min(RECORD - self.staged.len());
        self.staged.push(&bytes[..taken]);
        if self.staged.len() == RECORD {
            self.seal_staged()?;
        }
        Ok(taken)
    }

    fn failed(&mut self, failure: Failure) {
        self.reading = Reading::Failed(failure);
    }

    #[cfg(test)]
    pub(super) fn renew_keys(&mut self) -> io::Result<()> {
        self.perform(Want::NewKeys)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.incoming.held() + self.sealed.held() + self.opened.bytes().len() + self.staged.len()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Stream<Io> {
    /// Waits for bytes from below.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received >= TURN {
            self.received = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut room = self.incoming.room()?;
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let bytes = room.filled().len();
        match polled {
            Poll::Pending => {
                self.received = 0;
                self.incoming.rest();
                Poll::Pending
            }
            Poll::Ready(Ok(())) if bytes > 0 => {
                self.incoming.filled(bytes);
                self.received += bytes;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(result) => Poll::Ready(Err(result.err().unwrap_or_else(cut))),
        }
    }

    /// Sends what is sealed, as far as the socket takes it; ready when nothing is left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sealed.len() > 0 {
            match ready!(Pin::new(&mut self.io).poll_write(cx, self.sealed.bytes()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sealed.sent(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The alert, if the socket takes it at once: the connection is over anyway.
    fn tell_why(&mut self, cx: &mut Context<'_>) {
        self.session.encode_alert(self.incoming.all(), &mut self.sealed);
        let _ = self.poll_send(cx);
    }

    /// Ready when more may be staged.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == Writing::Finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.sealed.len() < MOST_SEALED {
            return Poll::Ready(Ok(()));
        }
        let sent = self.poll_send(cx)?;
        if self.sealed.len() < MOST_SEALED { Poll::Ready(Ok(())) } else { sent.map(Ok) }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = to.filled().len();
        this.opened.give(to);
        loop {
            if to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let here = to.filled().len() > before;
            match &this.reading {
                Reading::Open => {}
                Reading::Failed(failure) if !here => return Poll::Ready(Err(failure.error())),
                Reading::Ended | Reading::Failed(_) => return Poll::Ready(Ok(())),
            }
            match this.open(to) {
                Ok(Some(())) => {}
                Ok(None) if here => return Poll::Ready(Ok(())),
                Ok(None) => {
                    if let Err(error) = ready!(this.poll_receive(cx)) {
                        this.failed(Failure::Io(error.kind()));
                    }
                }
                Err(error) => {
                    this.failed(Failure::Tls(error));
                    this.tell_why(cx);
                }
            }
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        for slice in slices {
            let mut left = &slice[..];
            while !left.is_empty() {
                match this.poll_room(cx)? {
                    Poll::Ready(()) => {}
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(taken)),
                }
                let staged = this.stage(left)?;
                taken += staged;
                left = &left[staged..];
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.seal_staged()?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.writing == Writing::Open {
            this.seal_staged()?;
            this.perform(Want::CloseNotify)?;
            this.writing = Writing::Finished;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<Io> fmt::Debug for Stream<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("writing", &self.writing).finish_non_exhaustive()
    }
}
