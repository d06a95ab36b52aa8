//! What a stream sends in one frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Buf;
use futures_util::task::AtomicWaker;

use crate::buffers::Buffer;

/// Reads that fill less than this part of their buffer are copied out of it.
const SPARSE: usize = 4;

/// Chunks of one stream that may wait for the connection. Their bytes are bounded
/// elsewhere; this bounds what bytes alone would not: a million frames of one byte.
const MOST_WAITING: usize = 256;

/// Bytes to be sent, and what holds them until they are.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    memory: Memory,
    start: usize,
    end: usize,
    place: Option<Place>,
}

#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Pooled(Buffer),
    Exact(Box<[u8]>),
}

impl Chunk {
    /// The first `end` bytes of `buffer`, which is taken only if they are a good part
    /// of it: a chunk that waits should not hold much more than its bytes.
    pub(super) fn of_read(buffer: &mut Option<Buffer>, end: usize, place: Place) -> Self {
        let Some(full) = buffer.take_if(|buffer| end >= buffer.len() / SPARSE) else {
            let bytes = buffer.as_ref().map_or(&[][..], |buffer| &buffer[..end]);
            return Self::copied(bytes).in_place(place);
        };
        Self { memory: Memory::Pooled(full), start: 0, end, place: Some(place) }
    }

    pub(super) fn copied(bytes: &[u8]) -> Self {
        Self { memory: Memory::Exact(bytes.into()), start: 0, end: bytes.len(), place: None }
    }

    /// Counted among the waiting ones until it is sent.
    pub(super) fn in_place(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.end - self.start
    }

    fn chunk(&self) -> &[u8] {
        match &self.memory {
            Memory::None => &[],
            Memory::Pooled(buffer) => &buffer[self.start..self.end],
            Memory::Exact(bytes) => &bytes[self.start..self.end],
        }
    }

    fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining(), "advanced beyond the end");
        self.start += bytes;
        if self.start == self.end {
            // Sent, or copied to where it is sent from.
            self.memory = Memory::None;
            (self.start, self.end) = (0, 0);
            self.place = None;
        }
    }
}

/// Counts the chunks of one stream that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    chunks: AtomicUsize,
    sender: AtomicWaker,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Place(Arc<Waiting>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.load(Ordering::Acquire) == 0
    }

    /// Ready when one more may wait. For one task.
    pub(super) fn poll_place(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Place> {
        if self.chunks.load(Ordering::Acquire) >= MOST_WAITING {
            self.sender.register(cx.waker());
            if self.chunks.load(Ordering::Acquire) >= MOST_WAITING {
                return Poll::Pending;
            }
        }
        self.chunks.fetch_add(1, Ordering::AcqRel);
        Poll::Ready(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.chunks.fetch_sub(1, Ordering::AcqRel) == MOST_WAITING {
            self.0.sender.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::buffers::Size;

    fn place(waiting: &Arc<Waiting>) -> Option<Place> {
        match waiting.poll_place(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_small_read_leaves_its_buffer_behind() {
        let waiting = Arc::new(Waiting::default());
        let mut buffer = Some(Buffer::new(Size::Record));
        let small = Chunk::of_read(&mut buffer, 10, place(&waiting).unwrap());
        assert_eq!(small.remaining(), 10);
        assert!(buffer.is_some() && matches!(small.memory, Memory::Exact(_)));
        let large = Chunk::of_read(&mut buffer, 16_384, place(&waiting).unwrap());
        assert_eq!(large.remaining(), 16_384);
        assert!(buffer.is_none() && matches!(large.memory, Memory::Pooled(_)));
    }

    #[test]
    fn the_number_of_waiting_chunks_is_bounded() {
        let waiting = Arc::new(Waiting::default());
        let mut all: Vec<_> = std::iter::from_fn(|| place(&waiting)).collect();
        assert_eq!(all.len(), MOST_WAITING);
        all.pop();
        assert!(place(&waiting).is_some());
        drop(all);
        assert!(waiting.is_empty());
    }
}
