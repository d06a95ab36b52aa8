//! Notices changes of one file, also when the kubelet swaps the symbolic links above it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::{sleep, timeout};

/// A look without an event: a folder may be replaced, or be on a file system without
/// events.
const LOOK: Duration = Duration::from_secs(60);

/// A change is made of several events; one look after the last of them is enough.
const SETTLE: Duration = Duration::from_millis(50);

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
        let mut next = timeout(LOOK, events.next()).await;
        while let Ok(Some(Ok(_))) = next {
            next = timeout(SETTLE, events.next()).await;
        }
        // Broken, or its folder is gone: begin anew.
        if matches!(next, Ok(None | Some(Err(_)))) || !self.folder.exists() {
            self.events = None;
        }
    }
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
