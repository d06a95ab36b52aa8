//! Finding shared values by a hash of some part of them, in a map whose clone is cheap.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::Arc;

/// With 100,000 values a changed shard is a copy of some 400 pointers.
const SHARDS: usize = 256;

/// Turns what is looked up by into hashes. Clones give the same hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashing(RandomState);

impl Hashing {
    pub(crate) fn of(&self, key: impl Hash) -> u64 {
        self.0.hash_one(key)
    }
}

/// From hashes to values: only a pointer is kept of each, and whoever asks compares what
/// was found with what was meant, because two keys may share a hash.
///
/// Each hash is held by whoever claimed it last; when that one releases it, by whoever
/// claimed it before. A pod's address is given to the next pod before everybody has heard
/// of the end of the first.
///
/// A clone shares everything; a change copies the shard that it touches, unless nobody
/// else has it.
#[derive(Debug)]
pub(crate) struct Index<T> {
    shards: Arc<[Arc<Shard<T>>]>,
}

#[derive(Debug)]
struct Shard<T> {
    latest: HashMap<u64, Arc<T>, AsIs>,
    /// Earlier claims that were not released, oldest first. Most hashes have none.
    earlier: HashMap<u64, Vec<Arc<T>>, AsIs>,
}

impl<T> Index<T> {
    /// Makes `value` the holder.
    pub(crate) fn claim(&mut self, hash: u64, value: &Arc<T>) {
        let shard = self.shard_mut(hash);
        shard.release(hash, value);
        if let Some(former) = shard.latest.insert(hash, Arc::clone(value)) {
            shard.earlier.entry(hash).or_default().push(former);
        }
    }

    /// Takes back the claim of `value`.
    pub(crate) fn release(&mut self, hash: u64, value: &Arc<T>) {
        self.shard_mut(hash).release(hash, value);
    }

    /// The holder, then those before it.
    pub(crate) fn claimants(&self, hash: u64) -> impl Iterator<Item = &Arc<T>> {
        let shard = &self.shards[position(hash)];
        let earlier = shard.earlier.get(&hash).into_iter().flatten().rev();
        shard.latest.get(&hash).into_iter().chain(earlier)
    }

    /// The claimant that is meant, to be changed.
    pub(crate) fn find_mut(
        &mut self,
        hash: u64,
        meant: impl Fn(&T) -> bool,
    ) -> Option<&mut Arc<T>> {
        // Without a claimant there is nothing to copy a shard for.
        self.claimants(hash).find(|it| meant(it))?;
        let shard = self.shard_mut(hash);
        let earlier = shard.earlier.get_mut(&hash).into_iter().flatten();
        shard.latest.get_mut(&hash).into_iter().chain(earlier).find(|it| meant(it))
    }

    /// Everything that was claimed and not released, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.latest.values().chain(shard.earlier.values().flatten()))
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<T> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[position(hash)])
    }
}

impl<T> Shard<T> {
    fn release(&mut self, hash: u64, value: &Arc<T>) {
        let mut next = None;
        let holds = self.latest.get(&hash).is_some_and(|it| Arc::ptr_eq(it, value));
        if let Some(earlier) = self.earlier.get_mut(&hash) {
            earlier.retain(|it| !Arc::ptr_eq(it, value));
            if holds {
                next = earlier.pop();
            }
            if earlier.is_empty() {
                self.earlier.remove(&hash);
            }
        }
        match next {
            Some(next) => {
                self.latest.insert(hash, next);
            }
            None if holds => {
                self.latest.remove(&hash);
            }
            None => {}
        }
    }
}

/// The maps within a shard use the lowest and the highest bits.
fn position(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[1]) % SHARDS
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        let empty = Arc::new(Shard { latest: HashMap::default(), earlier: HashMap::default() });
        Self { shards: vec![empty; SHARDS].into() }
    }
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards) }
    }
}

impl<T> Clone for Shard<T> {
    fn clone(&self) -> Self {
        Self { latest: self.latest.clone(), earlier: self.earlier.clone() }
    }
}

type AsIs = BuildHasherDefault<AlreadyHashed>;

/// What is looked up by is a good hash already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
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
            ("a", Some('a')),
            ("aa", Some('a')),
            ("aA", None),
            ("aaA", None),
            ("ab", Some('b')),
            ("abA", Some('b')),
            ("abB", Some('a')),
            ("abAB", None),
            ("abaA", Some('b')),
            ("abcCB", Some('a')),
            ("abcBC", Some('a')),
            ("aB", Some('a')),
        ];
        for (story, expected) in cases {
            let values = ['a', 'b', 'c'].map(Arc::new);
            let mut index = Index::default();
            for event in story.chars() {
                let value = values.iter().find(|it| ***it == event.to_ascii_lowercase()).unwrap();
                if event.is_ascii_lowercase() {
                    index.claim(7, value);
                } else {
                    index.release(7, value);
                }
            }
            assert_eq!(index.claimants(7).next().map(|it| **it), expected, "{story}");
            assert_eq!(index.values().count(), index.claimants(7).count(), "{story}");
        }
    }

    #[test]
    fn a_clone_is_not_changed_and_shares_what_did_not_change() {
        let hashing = Hashing::default();
        let mut index = Index::default();
        for number in 0..1000_u32 {
            index.claim(hashing.of(number), &Arc::new(number));
        }
        let before = index.clone();
        index.claim(hashing.of("another"), &Arc::new(7));
        assert_eq!(before.values().count(), 1000);
        assert_eq!(index.values().count(), 1001);
        let pairs = before.shards.iter().zip(index.shards.iter());
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1, "one shard was copied");
    }

    #[test]
    fn what_is_to_be_changed_is_found_among_all_claimants() {
        let mut index = Index::default();
        for value in [1, 2, 3] {
            index.claim(7, &Arc::new(value));
        }
        for value in [1, 2, 3] {
            assert_eq!(**index.find_mut(7, |it| *it == value).unwrap(), value);
        }
        assert!(index.find_mut(7, |it| *it == 4).is_none());
        assert!(index.find_mut(8, |_| true).is_none());
    }
}
