//! Notices changes of one file, also when the kubelet swaps the symbolic links above it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::{Instant, sleep, timeout};

/// A look without an event: a folder may be replaced, or be on a file system without
/// events.
const LOOK: Duration = Duration::from_secs(60);

/// A change is made of several events; one look after the last of them is enough.
const SETTLE: Duration = Duration::from_millis(50);

/// In a folder that never comes to rest, for other files are written there, a look is due
/// all the same.
const RESTLESS: Duration = Duration::from_secs(1);

const BUFFER: usize = 4096;

/// Watches the folder of one file.
#[derive(Debug)]
pub(crate) struct FileWatch {
    folder: PathBuf,
    events: Option<EventStream<[u8; BUFFER]>>,
}

impl FileWatch {
    /// Needs a runtime.
    pub(crate) fn new(file: &Path) -> Self {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Self { events: watch(folder).ok(), folder: folder.to_owned() }
    }

    /// Returns when the file may have changed, at the latest after a minute. Whether it
    /// did, its content tells.
    pub(crate) async fn maybe_changed(&mut self) {
        let Some(events) = &mut self.events else {
            sleep(LOOK).await;
            self.events = watch(&self.folder).ok();
            return;
        };
        // Broken, or its folder is gone: begin anew.
        if next_change(events).await == Watch::Broken || !self.folder.exists() {
            self.events = None;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Goes,
    Broken,
}

/// Takes in the events of one change, or waits for none long enough.
async fn next_change<T>(events: &mut (impl Stream<Item = io::Result<T>> + Unpin)) -> Watch {
    let mut next = timeout(LOOK, events.next()).await;
    let end = Instant::now() + RESTLESS;
    while matches!(next, Ok(Some(Ok(_)))) && Instant::now() < end {
        next = timeout(SETTLE, events.next()).await;
    }
    if matches!(next, Ok(None | Some(Err(_)))) { Watch::Broken } else { Watch::Goes }
}

fn watch(folder: &Path) -> io::Result<EventStream<[u8; BUFFER]>> {
    let inotify = Inotify::init()?;
    let changes = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF;
    inotify.watches().add(folder, changes)?;
    inotify.into_event_stream([0; BUFFER])
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_never_rests_keeps_nothing_from_being_seen() {
        let every_ms = stream::unfold((), |()| async {
            sleep(Duration::from_millis(1)).await;
            Some((Ok(()), ()))
        });
        let mut events = Box::pin(every_ms.take(100_000));
        let change = timeout(Duration::from_secs(20), next_change(&mut events)).await;
        assert_eq!(change, Ok(Watch::Goes), "nothing is told while others write there");
    }
}
