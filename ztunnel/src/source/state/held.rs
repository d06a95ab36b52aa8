//! What is held of one type: names and versions, without a second copy of the content.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::hold::Withheld;

/// Name of a resource; that of a workload shares its memory with the view.
pub(super) type Name = Arc<str>;

/// The resources of one type by their names.
#[derive(Debug, Default)]
pub(super) struct Held {
    resources: HashMap<Name, Entry>,
    rejected: usize,
    /// The latest text of a version: control planes give many resources the same one.
    version_text: Option<Arc<str>>,
    /// A response came since this process started.
    pub(super) answered: bool,
    /// How the stream was opened, until its first response.
    pub(super) opening: Opening,
    /// Removals that are not believed yet.
    pub(super) withheld: Withheld,
}

/// What we said at the beginning of a stream, which decides what its first response means
/// for what it does not mention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Opening {
    /// There was a first response.
    #[default]
    Over,
    /// All that we hold: what is not mentioned is as it was.
    Claimed,
    /// Nothing, because it is too much: what is not mentioned is gone.
    Unclaimed,
}

#[derive(Debug)]
struct Entry {
    /// Means something only if it is good.
    version: Version,
    content: Content,
    latest: Latest,
}

/// What the latest version is. If unusable, the empty version asks at the next stream for
/// the resource again, or to be told that it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    Good,
    Unusable,
}

/// What the view has under a name, be it good or rejected. The key is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Workload,
    Service,
    Policy,
}

/// A version, kept small: most are numbers, or the same text for many resources.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    Number(u64),
    Text(Arc<str>),
}

impl Entry {
    fn unusable(&self) -> usize {
        usize::from(self.latest == Latest::Unusable)
    }
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.resources.len()
    }

    /// How many of them are there in a version that cannot be used.
    pub(super) fn rejected(&self) -> usize {
        self.rejected
    }

    pub(super) fn content(&self, name: &str) -> Option<Content> {
        self.resources.get(name).map(|entry| entry.content)
    }

    /// The name as it is kept.
    pub(super) fn name(&self, name: &str) -> Option<&Name> {
        self.resources.get_key_value(name).map(|(name, _)| name)
    }

    /// Notes a good version.
    pub(super) fn accept(&mut self, name: Name, version: &str, content: Content) {
        let version = self.version(version);
        self.put(name, Entry { version, content, latest: Latest::Good });
    }

    /// Notes that the latest version is unusable.
    pub(super) fn reject(&mut self, name: Name, content: Content) {
        let version = Version::Number(0);
        self.put(name, Entry { version, content, latest: Latest::Unusable });
    }

    fn put(&mut self, name: Name, entry: Entry) {
        self.rejected += entry.unusable();
        if let Some(old) = self.resources.insert(name, entry) {
            self.rejected -= old.unusable();
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Content> {
        let old = self.resources.remove(name)?;
        self.rejected -= old.unusable();
        Some(old.content)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.resources.keys()
    }

    /// A stream begins: what to claim on it, unless that is more than `limit` bytes.
    pub(super) fn open(&mut self, limit: usize) -> Option<BTreeMap<String, String>> {
        // Each entry of a map has two tags and three lengths; versions are short.
        let size: usize = self.resources.keys().map(|name| name.len() + 24).sum();
        self.opening = if size > limit { Opening::Unclaimed } else { Opening::Claimed };
        (self.opening == Opening::Claimed).then(|| self.versions())
    }

    /// Names and versions, to be told to the control plane.
    fn versions(&self) -> BTreeMap<String, String> {
        let text = |entry: &Entry| match (entry.latest, &entry.version) {
            (Latest::Unusable, _) => String::new(),
            (Latest::Good, Version::Number(number)) => number.to_string(),
            (Latest::Good, Version::Text(text)) => text.to_string(),
        };
        self.resources.iter().map(|(name, entry)| (name.to_string(), text(entry))).collect()
    }

    fn version(&mut self, text: &str) -> Version {
        match text.parse::<u64>() {
            // Only what reads back the same: neither "+7" nor "007".
            Ok(number) if number.to_string() == text => Version::Number(number),
            _ => {
                let last = self.version_text.take().filter(|last| **last == *text);
                let text = last.unwrap_or_else(|| text.into());
                self.version_text = Some(Arc::clone(&text));
                Version::Text(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_back_as_they_were() {
        let mut held = Held::default();
        let versions = ["7", "007", "+7", "", "2026-01-01T00:00:00Z/12", "18446744073709551616"];
        for version in versions {
            held.accept(version.into(), version, Content::Workload);
        }
        for (name, version) in held.versions() {
            assert_eq!(name, version);
        }
        assert_eq!(size_of::<Entry>(), 24, "there are a hundred thousand of them");
    }

    #[test]
    fn rejected_ones_are_counted_and_told_without_version() {
        let mut held = Held::default();
        held.accept("a".into(), "1", Content::Policy);
        held.reject("a".into(), Content::Policy);
        held.reject("b".into(), Content::Policy);
        assert_eq!((held.len(), held.rejected()), (2, 2));
        assert_eq!(held.versions()["a"], "");
        held.accept("a".into(), "2", Content::Policy);
        assert_eq!(held.rejected(), 1);
        held.remove("b");
        assert_eq!((held.len(), held.rejected()), (1, 0));
    }
}
