//! Buffers that are held only while there are bytes in them.
//!
//! Each thread keeps a small stock of every size, so that a connection that wakes up
//! finds warm memory, and one that sleeps holds none. A buffer goes back to the thread
//! that lets go of it.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

/// The sizes that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// One TLS record of the largest kind, or one read from a quiet application.
    Record,
    /// A few records.
    Medium,
    /// One read from a busy socket, and one record more.
    Large,
    /// What is sealed and waits for a socket.
    Huge,
}

/// Bytes of a size, and how many buffers of it a thread keeps: in all below 3 MiB.
const CLASSES: [(usize, usize); 4] =
    [(17 << 10, 16), (64 << 10, 4), ((256 + 17) << 10, 4), ((1024 + 128) << 10, 1)];

impl Size {
    /// Bytes of a buffer.
    pub(crate) const fn bytes(self) -> usize {
        CLASSES[self as usize].0
    }

    /// The smallest size with this many bytes.
    fn holding(bytes: usize) -> Option<Self> {
        [Self::Record, Self::Medium, Self::Large, Self::Huge]
            .into_iter()
            .find(|size| size.bytes() >= bytes)
    }
}

thread_local! {
    static STOCK: RefCell<[Vec<Box<[u8]>>; 4]> = const {
        RefCell::new([Vec::new(), Vec::new(), Vec::new(), Vec::new()])
    };
}

/// Initialised memory, with whatever its last user left in it: who holds it keeps count
/// of what is his.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    size: Option<Size>,
}

impl Buffer {
    /// A buffer of one of the sizes.
    pub(crate) fn new(size: Size) -> Self {
        let kept = STOCK.try_with(|stock| stock.borrow_mut()[size as usize].pop()).ok().flatten();
        let bytes = kept.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice());
        Self { bytes, size: Some(size) }
    }

    /// A buffer with at least so many bytes; beyond the sizes it is made for the occasion.
    pub(crate) fn holding(bytes: usize) -> Self {
        match Size::holding(bytes) {
            Some(size) => Self::new(size),
            None => Self { bytes: vec![0; bytes].into_boxed_slice(), size: None },
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(size) = self.size else { return };
        let bytes = mem::take(&mut self.bytes);
        // While a thread ends its stock is gone, and the buffer with it.
        let _ = STOCK.try_with(|stock| {
            let kept = &mut stock.borrow_mut()[size as usize];
            if kept.len() < CLASSES[size as usize].1 {
                kept.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Never the bytes: they may be somebody's plaintext.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(size: Size) -> usize {
        STOCK.with(|stock| stock.borrow()[size as usize].len())
    }

    #[test]
    fn a_buffer_returns_to_the_stock_and_the_stock_is_bounded() {
        let all: Vec<_> = (0..20).map(|_| Buffer::new(Size::Record)).collect();
        assert!(all.iter().all(|buffer| buffer.len() == Size::Record.bytes()));
        assert_eq!(kept(Size::Record), 0);
        drop(all);
        assert_eq!(kept(Size::Record), 16);
        let _one = Buffer::new(Size::Record);
        assert_eq!(kept(Size::Record), 15);
    }

    #[test]
    fn the_smallest_size_that_holds_it_is_taken() {
        assert_eq!(Buffer::holding(1).len(), Size::Record.bytes());
        assert_eq!(Buffer::holding(Size::Record.bytes() + 1).len(), Size::Medium.bytes());
        let beyond = Size::Huge.bytes() + 1;
        assert_eq!(Buffer::holding(beyond).len(), beyond);
        assert_eq!(kept(Size::Huge), 0, "what is made for the occasion is not kept");
    }
}
