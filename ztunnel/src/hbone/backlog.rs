//! Bytes on their way to a slow application.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Chunks from this size on are kept as they came; smaller ones are copied together.
const KEEP_FROM: usize = 8 << 10;

/// A merged chunk is closed at this size.
const MERGED: usize = 64 << 10;

/// Slices handed to one write.
const SLICES: usize = 16;

/// A queue of bytes that merges small chunks, so that its cost is the bytes in it,
/// however they were framed. Bounded by the stream's window: capacity is given back to
/// the peer only for what has left the queue.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.len() >= KEEP_FROM {
            self.close_tail();
            self.chunks.push_back(chunk);
            return;
        }
        self.tail.extend_from_slice(&chunk);
        if self.tail.len() >= MERGED {
            self.close_tail();
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// Calls `write` with the front of the queue and forgets what it took.
    pub(super) fn write_with<E>(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let tail: &[u8] = &self.tail;
        let parts = self.chunks.iter().map(|chunk| &chunk[..]).chain([tail]);
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        let written = write(&slices[..used])?;
        self.advance(written);
        Ok(written)
    }

    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(front) = self.chunks.front_mut() else {
                self.tail.advance(bytes);
                break;
            };
            let here = front.len().min(bytes);
            front.advance(here);
            bytes -= here;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        if self.is_empty() {
            // Nothing is held while idle.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_merged_and_the_order_is_kept() {
        let mut backlog = Backlog::default();
        let mut expected = Vec::new();
        for round in 0..40u8 {
            for size in [1, 16, 300, KEEP_FROM, 5] {
                let chunk = vec![round; size];
                expected.extend_from_slice(&chunk);
                backlog.push(chunk.into());
            }
        }
        assert!(backlog.chunks.len() <= 80, "{} chunks", backlog.chunks.len());
        let mut seen = Vec::new();
        while !backlog.is_empty() {
            backlog
                .write_with(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let part = all.len().min(3333);
                    seen.extend_from_slice(&all[..part]);
                    Ok::<_, ()>(part)
                })
                .unwrap();
        }
        assert!(seen == expected);
        assert_eq!(backlog.tail.capacity(), 0, "nothing is held while idle");
    }

    #[test]
    fn what_a_writer_refuses_stays() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"x"));
        assert_eq!(backlog.write_with(|_| Err::<usize, _>("full")), Err("full"));
        assert!(!backlog.is_empty());
    }
}
