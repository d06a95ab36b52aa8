//! A tunnelled stream as an ordinary connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunk::{Chunk, Waiting};
use super::stream::TunnelStream;

/// The most that one write takes.
const WRITE: usize = 256 << 10;

/// A [`TunnelStream`] to read from and write to. A reset, whatever its reason, is an
/// error and no end; dropped before its shutdown, the stream is reset.
#[derive(Debug)]
pub struct TunnelIo {
    stream: TunnelStream,
    unread: Bytes,
    waiting: Arc<Waiting>,
    read: Direction,
    written: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    Ended,
}

impl TunnelIo {
    pub(super) fn new(stream: TunnelStream) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            waiting: Arc::default(),
            read: Direction::Open,
            written: Direction::Open,
        }
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            if this.read == Direction::Ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(this.stream.recv.poll_data(cx)) {
                Some(Ok(bytes)) => this.unread = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => this.read = Direction::Ended,
            }
        }
        let bytes = this.unread.len().min(to.remaining());
        to.put_slice(&this.unread[..bytes]);
        this.unread.advance(bytes);
        // Fails only for a stream that is gone, which the next read tells.
        let _ = this.stream.recv.flow_control().release_capacity(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.written == Direction::Ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let send = &mut this.stream.send;
        send.reserve_capacity(bytes.len().min(WRITE));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let place = ready!(this.waiting.poll_place(cx));
        let taken = bytes.len().min(WRITE).min(send.capacity());
        let chunk = Chunk::copied(&bytes[..taken]).in_place(place);
        send.send_data(chunk, false).map_err(broken)?;
        send.reserve_capacity(0);
        Poll::Ready(Ok(taken))
    }

    /// The connection around it sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.written == Direction::Open {
            this.stream.send.send_data(Chunk::default(), true).map_err(broken)?;
            this.written = Direction::Ended;
            // Who has said everything may leave: unread bytes are cancelled.
            this.stream.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
