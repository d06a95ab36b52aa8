//! Who owns what, where more than one may say so.

use std::collections::HashMap;
use std::hash::Hash;

use crate::workload::Uid;

/// Each key is held by whoever claimed it last; when that one releases it, by whoever
/// claimed it before. A pod's address is given to the next pod before everybody has heard
/// of the end of the first.
#[derive(Clone, Debug)]
pub(crate) struct Claims<K> {
    holders: HashMap<K, Uid>,
    /// Earlier claims that were not released, oldest first. Most keys have none.
    earlier: HashMap<K, Vec<Uid>>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { holders: HashMap::new(), earlier: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Claims<K> {
    /// Makes `uid` the holder.
    pub(crate) fn claim(&mut self, key: K, uid: &Uid) {
        match self.holders.get_mut(&key) {
            Some(holder) if holder == uid => {}
            Some(holder) => {
                let former = std::mem::replace(holder, Uid::clone(uid));
                self.earlier.entry(key).or_default().push(former);
            }
            None => {
                self.holders.insert(key, Uid::clone(uid));
            }
        }
    }

    /// Takes back every claim of `uid`.
    pub(crate) fn release(&mut self, key: &K, uid: &str) {
        let mut next = None;
        let holds = self.holders.get(key).is_some_and(|it| **it == *uid);
        if let Some(earlier) = self.earlier.get_mut(key) {
            earlier.retain(|it| **it != *uid);
            if holds {
                next = earlier.pop();
            }
            if earlier.is_empty() {
                self.earlier.remove(key);
            }
        }
        match next {
            Some(next) => {
                self.holders.insert(key.clone(), next);
            }
            None if holds => {
                self.holders.remove(key);
            }
            None => {}
        }
    }

    pub(crate) fn holder(&self, key: &K) -> Option<&Uid> {
        self.holders.get(key)
    }

    /// The holder, then those before it.
    pub(crate) fn claimants(&self, key: &K) -> impl Iterator<Item = &Uid> {
        let earlier = self.earlier.get(key).into_iter().flatten().rev();
        self.holder(key).into_iter().chain(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // Claims are lower case, releases upper case.
        let cases = [
            ("", None),
            ("a", Some("a")),
            ("aa", Some("a")),
            ("aA", None),
            ("aaA", None),
            ("ab", Some("b")),
            ("abA", Some("b")),
            ("abB", Some("a")),
            ("abAB", None),
            ("abaA", Some("b")),
            ("abcCB", Some("a")),
            ("abcBC", Some("a")),
            ("aB", Some("a")),
        ];
        for (story, expected) in cases {
            let mut claims = Claims::default();
            for event in story.chars() {
                let uid: Uid = event.to_ascii_lowercase().to_string().into();
                if event.is_ascii_lowercase() {
                    claims.claim((), &uid);
                } else {
                    claims.release(&(), &uid);
                }
            }
            let holder = claims.holder(&()).map(|uid| &**uid);
            assert_eq!(holder, expected, "{story}");
            assert_eq!(claims.claimants(&()).next(), claims.holder(&()), "{story}");
        }
    }
}
