//! Messages on a TCP connection: each behind its length in two bytes (RFC 1035, 4.2.2).

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Read at once while a message is not complete.
const CHUNK: usize = 2048;

/// What was read and is not a whole message yet.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The next message; `None` at the end. Cancel-safe: what was read so far is kept.
    ///
    /// # Errors
    /// As read; [`io::ErrorKind::UnexpectedEof`] within a message.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            self.buffer.reserve(CHUNK);
            if from.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.buffer.first_chunk()?));
        if self.buffer.len() < 2 + length {
            return None;
        }
        self.buffer.advance(2);
        let message = self.buffer.split_to(length).to_vec();
        if self.buffer.is_empty() {
            // Nothing is kept while the connection is idle.
            self.buffer = BytesMut::new();
        }
        Some(message)
    }
}

/// Sends one message.
///
/// # Errors
/// As write; [`io::ErrorKind::InvalidInput`] for one of more than 65535 bytes.
pub(super) async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // In one piece: some servers do not expect a segment with a length alone.
    to.write_all(&[&length.to_be_bytes(), message].concat()).await
}
