//! What several fuzz targets need.
//!
//! A target is one parser of bytes from outside. It must not panic, hang or grow, and most
//! check a rule besides: what was read says what was written, what was taken away is gone.

pub mod frames;
pub mod mesh_parts;
pub mod tls_world;
pub mod wire;

use std::time::Duration;

/// Runs a connection to its end. Time is simulated: it jumps to the next deadline when
/// everybody waits, so a deadline costs nothing, and one that is missing shows as a panic.
pub fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    let limit = Duration::from_secs(24 * 3600);
    runtime.block_on(async { tokio::time::timeout(limit, what).await.expect("it ends") })
}

/// Changes to something well formed: most of it stays, so that parsers are entered deeply.
#[derive(Debug, arbitrary::Arbitrary)]
pub struct Edits(Vec<Edit>);

#[derive(Debug, arbitrary::Arbitrary)]
enum Edit {
    Set(u16, u8),
    Flip(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    Cut(u16),
}

impl Edits {
    /// Makes them.
    #[must_use]
    pub fn apply(&self, to: &[u8]) -> Vec<u8> {
        let mut bytes = to.to_vec();
        for edit in self.0.iter().take(64) {
            let (Edit::Set(at, _)
            | Edit::Flip(at, _)
            | Edit::Insert(at, _)
            | Edit::Remove(at, _)
            | Edit::Cut(at)) = edit;
            let at = usize::from(*at) % (bytes.len() + 1);
            match edit {
                Edit::Set(_, value) => bytes.get_mut(at).into_iter().for_each(|it| *it = *value),
                Edit::Flip(_, bits) => bytes.get_mut(at).into_iter().for_each(|it| *it ^= *bits),
                Edit::Insert(_, more) => {
                    bytes.splice(at..at, more.iter().copied());
                }
                Edit::Remove(_, count) => {
                    let end = bytes.len().min(at + usize::from(*count));
                    bytes.drain(at..end);
                }
                Edit::Cut(_) => bytes.truncate(at),
            }
        }
        bytes
    }
}
