//! Which keys belong to something.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Index<T>(HashMap<T, BTreeSet<String>>);

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Index<T> {
    pub(super) fn insert(&mut self, of: T, key: &str) {
        self.0.entry(of).or_default().insert(key.to_owned());
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, of: &Q, key: &str)
    where
        T: Borrow<Q>,
    {
        if let Some(keys) = self.0.get_mut(of) {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(of);
            }
        }
    }

    /// In their order.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, of: &Q) -> Vec<String>
    where
        T: Borrow<Q>,
    {
        self.0.get(of).into_iter().flatten().cloned().collect()
    }
}
