//! What is known about the connection to a peer besides its streams.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::timeout;

/// Shared by the socket, the task that drives the connection, and those who open streams.
#[derive(Debug, Default)]
pub(super) struct Line {
    heard: AtomicU64,
    doubted: AtomicBool,
    driver: AtomicWaker,
}

/// Nothing came from the peer, not even when it was asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silent;

impl Line {
    /// Bytes that have come from the peer.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// So many more have come.
    pub(super) fn hear(&self, bytes: usize) {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Has the peer been doubted since the last call? The task of `cx` is woken when it is.
    pub(super) fn doubted(&self, cx: &mut Context<'_>) -> bool {
        self.driver.register(cx.waker());
        self.doubted.load(Ordering::Acquire) && self.doubted.swap(false, Ordering::AcqRel)
    }

    /// Has the peer asked at once whether it is there.
    fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Waits for `answer` as long as something comes from the peer. When nothing has come
    /// for `pause` it is asked whether it is there, and has twice as long to show it. Each
    /// sign of life doubles the pause: a peer that only takes its time is not asked often.
    pub(super) async fn unless_silent<T>(
        &self,
        mut pause: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, Silent> {
        let mut answer = pin!(answer);
        loop {
            let heard = self.heard();
            if let Ok(answer) = timeout(pause, answer.as_mut()).await {
                return Ok(answer);
            }
            if self.heard() == heard {
                self.doubt();
                if let Ok(answer) = timeout(pause * 2, answer.as_mut()).await {
                    return Ok(answer);
                }
                if self.heard() == heard {
                    return Err(Silent);
                }
            }
            pause *= 2;
        }
    }
}
