//! A map of which copies are cheap: it is kept in parts, and a copy shares the parts that
//! have not changed since. So a snapshot of a hundred thousand workloads costs a few
//! hundred pointers, and what differs between two snapshots is found by looking into the
//! changed parts only.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Enough that a change in 100,000 entries touches a few hundred of them.
const PARTS: usize = 256;

type Part<V> = Arc<HashMap<Arc<str>, V>>;

#[derive(Clone, Debug)]
pub(crate) struct Shards<V> {
    parts: Vec<Part<V>>,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let empty: Part<V> = Arc::default();
        Self { parts: vec![empty; PARTS] }
    }
}

impl<V: Clone + PartialEq> Shards<V> {
    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.parts[index(key)].get(key)
    }

    /// Adds or replaces. An equal value leaves the part shared.
    pub(crate) fn insert(&mut self, key: &str, value: V) {
        let part = &mut self.parts[index(key)];
        if part.get(key) != Some(&value) {
            Arc::make_mut(part).insert(key.into(), value);
        }
    }

    /// Changes an entry in place; one that is not there starts empty.
    pub(crate) fn update(&mut self, key: &str, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let part = Arc::make_mut(&mut self.parts[index(key)]);
        match part.get_mut(key) {
            Some(value) => change(value),
            None => change(part.entry(key.into()).or_default()),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let part = &mut self.parts[index(key)];
        if part.contains_key(key) {
            Arc::make_mut(part).remove(key);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Entries that are here and not, or not the same, in `old`.
    pub(crate) fn changed_since<'a>(
        &'a self,
        old: &'a Self,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
        self.differing(old).flat_map(|(new, old)| {
            new.iter().filter(move |(key, value)| old.get(*key) != Some(*value))
        })
    }

    /// Keys that are in `old` and not here.
    pub(crate) fn removed_since<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        self.differing(old)
            .flat_map(|(new, old)| old.keys().filter(move |key| !new.contains_key(*key)))
    }

    fn differing<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = (&'a Part<V>, &'a Part<V>)> {
        self.parts.iter().zip(&old.parts).filter(|(new, old)| !Arc::ptr_eq(new, old))
    }
}

fn index(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // The remainder is below PARTS, so nothing is lost.
    (hasher.finish() % PARTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(new: &Shards<u32>, old: &Shards<u32>) -> (Vec<String>, Vec<String>) {
        let mut changed: Vec<_> = new.changed_since(old).map(|(key, _)| key.to_string()).collect();
        let mut removed: Vec<_> = new.removed_since(old).map(ToString::to_string).collect();
        changed.sort();
        removed.sort();
        (changed, removed)
    }

    #[test]
    fn a_copy_keeps_what_it_was_and_differences_are_found() {
        let mut now = Shards::default();
        for n in 0..1000_u32 {
            now.insert(&n.to_string(), n);
        }
        let before = now.clone();
        now.insert("7", 700);
        now.insert("8", 8);
        now.insert("new", 1);
        now.remove("9");
        now.remove("never there");
        assert_eq!(changes(&now, &before), (vec!["7".into(), "new".into()], vec!["9".into()]));
        assert_eq!(before.get("7"), Some(&7));
        assert_eq!(now.differing(&before).count(), 3, "other parts are still shared");
        assert_eq!(now.iter().count(), 1000);
    }

    #[test]
    fn everything_differs_from_nothing() {
        let mut now = Shards::default();
        now.insert("a", 1);
        assert_eq!(changes(&now, &Shards::default()), (vec!["a".into()], vec![]));
        assert_eq!(changes(&Shards::default(), &now), (vec![], vec!["a".into()]));
    }
}
