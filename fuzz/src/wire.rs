//! Connections in memory.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A peer that has said everything at once and takes whatever it is told.
#[derive(Debug)]
pub struct Monologue {
    pieces: VecDeque<Vec<u8>>,
    end: End,
}

/// How the peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, arbitrary::Arbitrary)]
pub enum End {
    /// It hangs up.
    Eof,
    /// The connection breaks.
    Reset,
    /// It is silent for ever.
    Silence,
}

impl Monologue {
    /// Says `bytes`, at most `piece` of them at once.
    #[must_use]
    pub fn new(bytes: &[u8], piece: u16, end: End) -> Self {
        let pieces = bytes.chunks(usize::from(piece).max(1)).map(<[u8]>::to_vec).collect();
        Self { pieces, end }
    }
}

impl AsyncRead for Monologue {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(piece) = this.pieces.front_mut() else {
            return match this.end {
                End::Eof => Poll::Ready(Ok(())),
                End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                End::Silence => Poll::Pending,
            };
        };
        let fits = piece.len().min(to.remaining());
        to.put_slice(&piece[..fits]);
        piece.drain(..fits);
        if piece.is_empty() {
            this.pieces.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Monologue {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
