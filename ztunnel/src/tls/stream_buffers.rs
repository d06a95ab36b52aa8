//! The three places where bytes of a secured connection wait.

use std::io;

use tokio::io::ReadBuf;

use super::stream_session::Shortage;
use crate::buffers::{Buffer, Size};

/// The largest record on the wire.
const RECORD: usize = 5 + (16 << 10) + 256;

/// Sealed bytes on their way to the socket.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    /// Has `write` put something behind what is there, with as much space as it needs.
    pub(super) fn append(
        &mut self,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, Shortage>,
    ) -> Result<(), rustls::Error> {
        loop {
            let space = self.buffer.as_mut().map_or(&mut [][..], |buffer| &mut buffer[self.end..]);
            match write(space) {
                Ok(written) => {
                    self.end += written;
                    return Ok(());
                }
                Err(shortage) => self.make_room(shortage?.required_size),
            }
        }
    }

    fn make_room(&mut self, needed: usize) {
        let len = self.len();
        match &mut self.buffer {
            Some(buffer) if buffer.len() - len >= needed => {
                buffer.copy_within(self.start..self.end, 0);
            }
            _ => {
                let mut larger = Buffer::holding(len + needed);
                larger[..len].copy_from_slice(self.bytes());
                self.buffer = Some(larger);
            }
        }
        (self.start, self.end) = (0, len);
    }

    /// The first bytes have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            *self = Self::default();
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }
}

/// Sealed bytes from the socket. A large buffer is held only while there are records to
/// open: of a peer that stops in the middle of one, no more than that piece is kept.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    buffer: Option<Buffer>,
    shelf: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that rustls has looked at and wants to see again, at the front.
    seen: usize,
}

impl Incoming {
    /// What the handshake left over: all of it, and how much of it was looked at.
    pub(super) fn new(mut shelf: Vec<u8>, seen: usize) -> Self {
        shelf.shrink_to_fit();
        Self { end: shelf.len(), shelf, seen, ..Self::default() }
    }

    fn slice(&mut self, len: usize) -> &mut [u8] {
        let range = self.start..self.start + len;
        match &mut self.buffer {
            Some(buffer) => &mut buffer[range],
            None => &mut self.shelf[range],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All that is there.
    pub(super) fn all(&mut self) -> &mut [u8] {
        self.slice(self.end - self.start)
    }

    /// What must be shown again to a session that is to do something else: it keeps
    /// places in these bytes while a message of several records is incomplete.
    pub(super) fn seen(&mut self) -> &mut [u8] {
        self.slice(self.seen)
    }

    /// Bytes at the front are used up; of the rest, the session wants to see `seen`.
    pub(super) fn used(&mut self, discard: usize, seen: Seen) {
        self.start += discard;
        self.seen = match seen {
            Seen::Everything => self.end - self.start,
            Seen::Nothing => 0,
            Seen::AsBefore => self.seen - discard,
        };
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Room for more, in a large buffer.
    pub(super) fn room(&mut self) -> io::Result<ReadBuf<'_>> {
        let (start, end) = (self.start, self.end);
        if self.buffer.is_none() {
            let mut buffer = Buffer::holding(Size::Large.bytes().max(end - start + RECORD));
            buffer[..end - start].copy_from_slice(&self.shelf[start..end]);
            self.shelf = Vec::new();
            self.buffer = Some(buffer);
            (self.start, self.end) = (0, end - start);
        }
        let buffer = self.buffer.as_mut().expect("taken above");
        if buffer.len() - self.end < RECORD {
            buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == buffer.len() {
            let error = "a message of the TLS peer does not fit the buffer";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(ReadBuf::new(&mut buffer[self.end..]))
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Nothing more comes for now: lets go of the large buffer.
    pub(super) fn rest(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.shelf = buffer[self.start..self.end].to_vec();
            (self.start, self.end) = (0, self.shelf.len());
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len()) + self.shelf.capacity()
    }
}

/// How much of the bytes that are left a session has looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    Everything,
    Nothing,
    AsBefore,
}

/// Bytes in clear: opened and not yet read, or written and not yet sealed.
#[derive(Debug, Default)]
pub(super) struct Clear {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Clear {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    /// Takes all of `bytes`, however many they are.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let needed = self.len() + bytes.len();
        if self.buffer.as_ref().is_none_or(|buffer| buffer.len() - self.end < bytes.len()) {
            let mut larger = Buffer::holding(needed);
            larger[..self.len()].copy_from_slice(self.bytes());
            self.buffer = Some(larger);
            (self.start, self.end) = (0, needed - bytes.len());
        }
        if let Some(buffer) = &mut self.buffer {
            buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    /// The first bytes are done with.
    pub(super) fn used(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            *self = Self::default();
        }
    }

    /// Hands out as much as there is room for.
    pub(super) fn give(&mut self, to: &mut ReadBuf<'_>) {
        let bytes = self.len().min(to.remaining());
        if bytes > 0 {
            to.put_slice(&self.bytes()[..bytes]);
            self.used(bytes);
        }
    }
}
