//! The body of a watch: one line of JSON for each event, until its time is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::action::{Bookmarks, Place, WatchOptions};
use super::handler::{Body, Shared};
use super::negotiate::View;
use super::render;
use super::resource::Resource;
use super::status::{Reason, Refusal};
use super::watch::{Cursor, Event};

/// One watch under way.
struct Watch {
    shared: Arc<Shared>,
    resource: &'static Resource,
    view: View,
    cursor: Cursor,
    /// What is still to be sent. Holds at most the state at the start or the history.
    pending: VecDeque<Event>,
    changed: watch::Receiver<u64>,
    bookmarks: Bookmarks,
    bookmark_timer: Interval,
    end: Instant,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Over,
}

/// What a watcher waited for.
enum Woken {
    Changed,
    BookmarkDue,
    TimeOver,
    Stopped,
}

/// Starts a watch. A version out of reach is told in the stream, as watchers expect it.
pub(crate) fn watch(
    shared: &Arc<Shared>,
    place: &Place,
    options: &WatchOptions,
    view: View,
) -> Result<Body, Refusal> {
    // Subscribed before the state is read: no change can fall between the two.
    let changed = shared.changed.subscribe();
    let begun = Cursor::begin(&shared.state().store, place, options);
    let (cursor, first) = match begun {
        Ok(begun) => begun,
        Err(refusal) if refusal.reason == Reason::Expired => {
            let line = stream::once(async move { frame(error_line(&refusal)) });
            return Ok(StreamBody::new(line).boxed_unsync());
        }
        Err(refusal) => return Err(refusal),
    };
    let now = Instant::now();
    // A timer cannot be set to fire without a pause.
    let every = shared.limits.bookmark_interval.max(Duration::from_millis(1));
    let mut bookmark_timer = interval_at(now + every, every);
    bookmark_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        shared: Arc::clone(shared),
        resource: place.resource,
        view,
        cursor,
        pending: first.into(),
        changed,
        bookmarks: options.bookmarks,
        bookmark_timer,
        end: now + options.timeout,
        phase: Phase::Running,
    };
    let lines = stream::unfold(watch, |mut watch| async move {
        watch.next_line().await.map(|line| (frame(line), watch))
    });
    Ok(StreamBody::new(lines).boxed_unsync())
}

fn frame(line: Bytes) -> Result<Frame<Bytes>, std::convert::Infallible> {
    Ok(Frame::data(line))
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({ "type": kind, "object": object }).to_string();
    line.push('\n');
    Bytes::from(line)
}

fn error_line(refusal: &Refusal) -> Bytes {
    line("ERROR", &refusal.status())
}

impl Watch {
    async fn next_line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(self.render(&event));
            }
            if self.phase == Phase::Over {
                return None;
            }
            match self.wait().await {
                Woken::Changed => {
                    let advanced = self.cursor.advance(&self.shared.state().store);
                    match advanced {
                        Ok(events) => self.pending.extend(events),
                        Err(refusal) => {
                            self.phase = Phase::Over;
                            return Some(error_line(&refusal));
                        }
                    }
                }
                Woken::BookmarkDue => self.pending.push_back(self.cursor.bookmark()),
                Woken::TimeOver => {
                    // The last word of a watch lets its client go on from here, not from the
                    // last change of its own objects, which may be long ago.
                    self.phase = Phase::Over;
                    if self.bookmarks == Bookmarks::Yes {
                        self.pending.push_back(self.cursor.bookmark());
                    }
                }
                Woken::Stopped => return None,
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let with_bookmarks = self.bookmarks == Bookmarks::Yes;
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Woken::Stopped,
            changed = self.changed.changed() => match changed {
                Ok(()) => Woken::Changed,
                Err(_) => Woken::Stopped,
            },
            () = tokio::time::sleep_until(self.end) => Woken::TimeOver,
            _ = self.bookmark_timer.tick(), if with_bookmarks => Woken::BookmarkDue,
        }
    }

    fn render(&self, event: &Event) -> Bytes {
        let now = OffsetDateTime::now_utc();
        let object = match (&self.view, event.kind) {
            // A bookmark has no cells worth showing; only the version counts.
            (View::Object, super::watch::EventKind::Bookmark) => Value::clone(&event.object),
            (view, _) => render::object(view, self.resource, &event.object, now),
        };
        line(event.kind.word(), &object)
    }
}
