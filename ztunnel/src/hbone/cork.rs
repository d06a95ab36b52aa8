//! Holding back until the whole of a turn can be sent at once.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;

/// HTTP/2 flushes after every frame; a peer would be woken for each. Through a cork the
/// flush does nothing: whoever drives the connection, and holds the other handle, sends
/// what has come together with [`Cork::poll_send`] when the connection has nothing more
/// to do.
#[derive(Debug)]
pub(super) struct Cork<Io> {
    io: Arc<Mutex<Io>>,
    /// Hears what is read.
    line: Arc<Line>,
}

impl<Io> Clone for Cork<Io> {
    fn clone(&self) -> Self {
        Self { io: Arc::clone(&self.io), line: Arc::clone(&self.line) }
    }
}

impl<Io> Cork<Io> {
    pub(super) fn new(io: Io) -> Self {
        Self { io: Arc::new(Mutex::new(io)), line: Arc::default() }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Both handles are in one task, so nobody ever waits here.
    fn io(&self) -> MutexGuard<'_, Io> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io: AsyncWrite + Unpin> Cork<Io> {
    /// Sends what was held back.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io()).poll_flush(cx)
    }
}

/// The beginning of a connection, which has no driver yet.
pub(super) async fn corked<Io: AsyncWrite + Unpin, T>(
    cork: &Cork<Io>,
    handshake: impl Future<Output = T>,
) -> T {
    let mut handshake = pin!(handshake);
    poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if polled.is_pending() {
            // A socket that fails here fails to be read too.
            let _ = cork.poll_send(cx);
        }
        polled
    })
    .await
}

impl<Io: AsyncRead + Unpin> AsyncRead for Cork<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let polled = Pin::new(&mut *self.io()).poll_read(cx, to);
        self.line.hear(to.filled().len() - before);
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Cork<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// At the end nothing is held back.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io()).poll_shutdown(cx)
    }
}
