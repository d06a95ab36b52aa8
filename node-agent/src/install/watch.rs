//! Notices that something changes in the folder.

use std::io;
use std::path::Path;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchMask};

const BUFFER: usize = 4096;

/// Follows one folder, which may come and go.
#[derive(Debug, Default)]
pub(super) struct Watch {
    events: Option<EventStream<[u8; BUFFER]>>,
}

impl Watch {
    /// To be called before the folder is read: what changes from then on is noticed. Of a
    /// folder that was made anew, the new one is followed. Needs a runtime.
    pub(super) fn renew(&mut self, folder: &Path) {
        let changes = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        if self.events.is_none() {
            self.events = open().ok();
        }
        if let Some(events) = &mut self.events {
            // What was noticed before is about to be seen.
            while let Some(Some(Ok(_))) = events.next().now_or_never() {}
            // A folder that is followed already stays so; one that is not there is looked
            // for again.
            let _ = events.watches().add(folder, changes);
        }
    }

    /// Until something has changed; never, where that cannot be noticed.
    pub(super) async fn changed(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        if !matches!(events.next().await, Some(Ok(_))) {
            // Broken: the next look begins anew.
            self.events = None;
        }
    }
}

fn open() -> io::Result<EventStream<[u8; BUFFER]>> {
    Inotify::init()?.into_event_stream([0; BUFFER])
}
