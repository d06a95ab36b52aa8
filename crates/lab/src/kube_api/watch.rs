//! Watches: from changes in the store to the events of one watcher. No IO, no clock.
//!
//! A watcher keeps nothing but the version it has seen; what comes next is read from the
//! store's bounded history. One that falls behind it is told so (410) and lists again.

use std::sync::Arc;

use serde_json::{Value, json};

use super::action::{At, Bookmarks, Place, Start, WatchOptions};
use super::meta;
use super::reads::{fresh_enough, out_of_reach};
use super::resource::Resource;
use super::selector::Selection;
use super::status::Refusal;
use super::store::{Change, OutOfReach, Store};

/// What happened, as the watcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

impl EventKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
            EventKind::Bookmark => "BOOKMARK",
        }
    }
}

/// One event, its object in stored form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) object: Arc<Value>,
}

/// How far one watcher has come.
#[derive(Debug)]
pub(crate) struct Cursor {
    resource: &'static Resource,
    namespace: Option<String>,
    selection: Selection,
    version: u64,
}

impl Cursor {
    /// Begins a watch: the cursor and the events that come first.
    pub(crate) fn begin(
        store: &Store,
        place: &Place,
        options: &WatchOptions,
    ) -> Result<(Cursor, Vec<Event>), Refusal> {
        let mut cursor = Cursor {
            resource: place.resource,
            namespace: place.namespace.clone(),
            selection: options.selection.clone(),
            version: store.version(),
        };
        let first = match options.start {
            Start::Now => Vec::new(),
            Start::After(version) => {
                cursor.version = version;
                cursor.advance(store)?
            }
            Start::State => cursor.state(store),
            Start::StateAndMark(version) => {
                fresh_enough(store, At::NotOlderThan(version))?;
                let mut events = cursor.state(store);
                if options.bookmarks == Bookmarks::Yes {
                    events.push(cursor.end_of_state());
                }
                events
            }
        };
        Ok((cursor, first))
    }

    fn state(&self, store: &Store) -> Vec<Event> {
        store
            .objects(self.resource.storage, self.namespace.as_deref())
            .filter(|(_, object)| self.selection.matches(object))
            .map(|(_, object)| Event { kind: EventKind::Added, object: Arc::clone(object) })
            .collect()
    }

    /// The events since the last call.
    pub(crate) fn advance(&mut self, store: &Store) -> Result<Vec<Event>, Refusal> {
        let changes = store.changes_since(self.version).map_err(|why| match why {
            OutOfReach::TooOld { .. } => out_of_reach(self.version, why),
            // A version of another life of this API: only a new list helps.
            OutOfReach::TooNew { newest } => Refusal::expired(format!(
                "resourceVersion {} is unknown here, the newest is {newest}; list again",
                self.version
            )),
        })?;
        let events = changes.filter_map(|change| self.event(change)).collect();
        self.version = store.version();
        Ok(events)
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let key = &change.key;
        let here = key.storage == self.resource.storage
            && self.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace);
        if !here {
            return None;
        }
        let matching = |object: &Option<Arc<Value>>| {
            object.as_ref().filter(|object| self.selection.matches(object)).cloned()
        };
        let (kind, object) = match (matching(&change.before), matching(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => (EventKind::Added, after),
            (Some(_), Some(after)) => (EventKind::Modified, after),
            (Some(before), None) => (EventKind::Deleted, at_version(&before, change.version)),
        };
        Some(Event { kind, object })
    }

    /// An event that only says how far the watcher has come.
    pub(crate) fn bookmark(&self) -> Event {
        let object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null },
        });
        Event { kind: EventKind::Bookmark, object: Arc::new(object) }
    }

    fn end_of_state(&self) -> Event {
        let mut event = self.bookmark();
        let object = Arc::make_mut(&mut event.object);
        object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        event
    }
}

/// What is gone is shown as it last was, at the version at which it went.
fn at_version(object: &Arc<Value>, version: u64) -> Arc<Value> {
    let mut object = Value::clone(object);
    meta::metadata_mut(&mut object)
        .insert("resourceVersion".to_owned(), version.to_string().into());
    Arc::new(object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kube_api::resource::find;
    use crate::kube_api::selector::LabelSelector;
    use crate::kube_api::status::Reason;
    use crate::kube_api::store::Key;

    fn place() -> Place {
        let resource = find("", "v1", "pods").unwrap();
        Place { resource, namespace: Some("n".to_owned()), name: None }
    }

    fn options(labels: &str, start: Start) -> WatchOptions {
        let labels = LabelSelector::parse(labels).unwrap();
        let selection = Selection { labels, ..Selection::default() };
        let timeout = Duration::from_secs(1);
        WatchOptions { selection, start, bookmarks: Bookmarks::Yes, timeout }
    }

    fn key(namespace: &str, name: &str) -> Key {
        Key { storage: "pods", namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn pod(app: &str) -> Value {
        json!({ "metadata": { "labels": { "app": app } } })
    }

    fn kinds(events: &[Event]) -> Vec<&'static str> {
        events.iter().map(|event| event.kind.word()).collect()
    }

    #[test]
    fn a_selector_decides_what_comes_and_what_goes() {
        let mut store = Store::new(100);
        let (mut cursor, first) =
            Cursor::begin(&store, &place(), &options("app=web", Start::Now)).unwrap();
        assert_eq!(first, []);
        store.put(key("n", "a"), pod("db"));
        store.put(key("n", "a"), pod("web"));
        store.put(key("n", "a"), pod("web"));
        store.put(key("m", "other"), pod("web"));
        store.put(key("n", "a"), pod("db"));
        store.remove(&key("n", "a"));
        let events = cursor.advance(&store).unwrap();
        assert_eq!(kinds(&events), ["ADDED", "MODIFIED", "DELETED"]);
        assert_eq!(events[2].object["metadata"]["labels"]["app"], "web");
        assert_eq!(events[2].object["metadata"]["resourceVersion"], "6");
        assert_eq!(cursor.advance(&store).unwrap(), []);
    }

    #[test]
    fn a_streamed_list_ends_with_its_mark() {
        let mut store = Store::new(100);
        store.put(key("n", "a"), pod("web"));
        let (_, first) =
            Cursor::begin(&store, &place(), &options("", Start::StateAndMark(0))).unwrap();
        assert_eq!(kinds(&first), ["ADDED", "BOOKMARK"]);
        let mark = &first[1].object["metadata"];
        assert_eq!(mark["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(mark["resourceVersion"], "2");
    }

    #[test]
    fn versions_out_of_reach_are_expired() {
        let mut store = Store::new(1);
        store.put(key("n", "a"), pod("web"));
        store.put(key("n", "a"), pod("db"));
        for version in [1, 99] {
            let begun = Cursor::begin(&store, &place(), &options("", Start::After(version)));
            assert_eq!(begun.unwrap_err().reason, Reason::Expired, "{version}");
        }
    }
}
