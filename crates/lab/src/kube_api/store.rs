//! All objects and the recent history of their changes. No IO, no clock; the server keeps one
//! behind a lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::meta;

/// Where an object is filed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// [`super::resource::Resource::storage`].
    pub(crate) storage: &'static str,
    /// Empty for objects of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One committed change.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// A version that the history kept here does not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfReach {
    /// Its changes are no longer kept; the oldest version that can be asked for.
    TooOld { oldest: u64 },
    /// It has not come yet (or is of another life of this server).
    TooNew { newest: u64 },
}

/// Objects of one resource at one version.
pub(crate) type Snapshot = BTreeMap<Key, Arc<Value>>;

/// The objects. Cloning is cheap enough for a dry run: the objects themselves are shared.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    history: VecDeque<Change>,
    history_limit: usize,
    service_ranges: Arc<[IpNetwork]>,
    /// The version before the oldest change in the history.
    floor: u64,
}

impl Store {
    /// An empty store that keeps this many changes for watchers.
    pub(crate) fn new(history_limit: usize) -> Store {
        // Version 0 has a meaning of its own in the API ("any"), so objects begin after 1.
        Store {
            objects: BTreeMap::new(),
            version: 1,
            history: VecDeque::new(),
            history_limit,
            service_ranges: Arc::default(),
            floor: 1,
        }
    }

    /// The same, with addresses for services.
    pub(crate) fn with_service_ranges(self, ranges: &[IpNetwork]) -> Store {
        Store { service_ranges: ranges.into(), ..self }
    }

    /// Whose addresses services get, the preferred one first.
    pub(crate) fn service_ranges(&self) -> &[IpNetwork] {
        &self.service_ranges
    }

    /// The version of the newest change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Writes the object under the next version.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        let version = (self.version + 1).to_string();
        meta::metadata_mut(&mut object).insert("resourceVersion".to_owned(), version.into());
        let object = Arc::new(object);
        self.commit(key, Some(Arc::clone(&object)));
        object
    }

    /// Removes the object, which takes a version too.
    pub(crate) fn remove(&mut self, key: &Key) {
        if self.objects.contains_key(key) {
            self.commit(key.clone(), None);
        }
    }

    fn commit(&mut self, key: Key, after: Option<Arc<Value>>) {
        self.version += 1;
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), Arc::clone(object)),
            None => self.objects.remove(&key),
        };
        self.history.push_back(Change { version: self.version, key, before, after });
        while self.history.len() > self.history_limit {
            if let Some(dropped) = self.history.pop_front() {
                self.floor = dropped.version;
            }
        }
    }

    /// The objects of a resource, in one namespace or in all.
    pub(crate) fn objects<'a>(
        &'a self,
        storage: &'static str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let namespace_start = namespace.unwrap_or_default().to_owned();
        let first = Key { storage, namespace: namespace_start, name: String::new() };
        self.objects.range(first..).take_while(move |(key, _)| {
            key.storage == storage && namespace.is_none_or(|n| key.namespace == n)
        })
    }

    /// Everything in a namespace, of every resource.
    pub(crate) fn content(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// The objects as they were at `version`, found by undoing what came later.
    pub(crate) fn snapshot(
        &self,
        storage: &'static str,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Snapshot, OutOfReach> {
        self.reach(version)?;
        let now = self.objects(storage, namespace);
        let mut snapshot: Snapshot = now.map(|(k, o)| (k.clone(), Arc::clone(o))).collect();
        for change in self.history.iter().rev().take_while(|change| change.version > version) {
            let here = change.key.storage == storage
                && namespace.is_none_or(|namespace| change.key.namespace == namespace);
            match (&change.before, here) {
                (Some(before), true) => {
                    snapshot.insert(change.key.clone(), Arc::clone(before));
                }
                (None, true) => {
                    snapshot.remove(&change.key);
                }
                (_, false) => {}
            }
        }
        Ok(snapshot)
    }

    /// The changes after `version`, oldest first.
    pub(crate) fn changes_since(
        &self,
        version: u64,
    ) -> Result<impl Iterator<Item = &Change>, OutOfReach> {
        self.reach(version)?;
        let start = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(start..))
    }

    fn reach(&self, version: u64) -> Result<(), OutOfReach> {
        if version < self.floor {
            Err(OutOfReach::TooOld { oldest: self.floor })
        } else if version > self.version {
            Err(OutOfReach::TooNew { newest: self.version })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { storage: "pods", namespace: "n".to_owned(), name: name.to_owned() }
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_snapshot_is_what_was_there_then() {
        let mut store = Store::new(10);
        store.put(key("a"), json!({"v": 1}));
        let then = store.version();
        store.put(key("a"), json!({"v": 2}));
        store.put(key("b"), json!({}));
        store.remove(&key("a"));
        let snapshot = store.snapshot("pods", None, then).unwrap();
        assert_eq!(names(&snapshot), ["a"]);
        assert_eq!(snapshot[&key("a")]["v"], 1);
        assert_eq!(names(&store.snapshot("pods", Some("n"), store.version()).unwrap()), ["b"]);
        assert!(store.snapshot("pods", Some("m"), then).unwrap().is_empty());
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let mut store = Store::new(2);
        for version in 0..4 {
            store.put(key("a"), json!({ "v": version }));
        }
        assert_eq!(store.version(), 5);
        assert_eq!(store.changes_since(3).unwrap().count(), 2);
        assert_eq!(store.changes_since(2).err(), Some(OutOfReach::TooOld { oldest: 3 }));
        assert_eq!(store.changes_since(6).err(), Some(OutOfReach::TooNew { newest: 5 }));
        assert_eq!(store.changes_since(5).unwrap().count(), 0);
    }
}
