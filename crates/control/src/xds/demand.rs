//! What a client asks for by name: of this it is sent what there is, what changes, and
//! what goes; for a name that means nothing it is sent a removal. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::subscription::{Batch, Kind};
use crate::world::{Resource, World, aliases};

/// Names that a client may ask for. It remembers what it has and names that too when it
/// comes back, so this is more than a large mesh has.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct Demand {
    names: BTreeSet<String>,
    /// Those of the names that were not answered yet.
    unanswered: BTreeSet<String>,
    /// Name and version of what the client has.
    has: BTreeMap<String, String>,
}

impl Demand {
    /// A client that comes back says what it has, and with an empty version what it still
    /// waits for. It means to go on having all of it.
    pub(super) fn resumed(claimed: BTreeMap<String, String>) -> Self {
        let names: BTreeSet<_> = claimed.keys().cloned().collect();
        let waiting = claimed.iter().filter(|(_, version)| version.is_empty());
        let unanswered = waiting.map(|(name, _)| name.clone()).collect();
        let has = claimed.into_iter().filter(|(_, version)| !version.is_empty()).collect();
        Self { names, unanswered, has }
    }

    pub(super) fn change(&mut self, subscribe: Vec<String>, unsubscribe: &[String]) {
        for name in unsubscribe {
            self.names.remove(name);
            self.unanswered.remove(name);
        }
        for name in subscribe.into_iter().filter(|name| name != "*") {
            self.unanswered.insert(name.clone());
            self.names.insert(name);
        }
    }

    /// Whether it asks for more than anybody needs: that would be kept here for it.
    pub(super) fn is_too_much(&self) -> bool {
        self.names.len() > MOST
    }

    /// What the client has.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        self.has.clone()
    }

    /// As much of what is due as goes into one response; it counts as sent.
    pub(super) fn next(&mut self, kind: Kind, world: &World) -> Batch {
        let mut batch = Batch::default();
        let mut wanted = BTreeSet::new();
        for name in &self.names {
            let meant = meant_by(kind, world, name);
            if self.unanswered.contains(name) {
                if meant.is_empty() {
                    self.has.remove(name);
                    batch.remove(name);
                }
                // Who asks is answered, also with what was sent before.
                meant.iter().for_each(|it| drop(self.has.remove(&**it)));
            }
            wanted.extend(meant);
        }
        self.unanswered.clear();
        let gone: Vec<_> =
            self.has.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.has.remove(&name);
            batch.remove(&name);
        }
        for name in wanted {
            let Some(resource) = kind.of(world).get(&name).filter(|_| !batch.is_full()) else {
                continue;
            };
            if self.has.get(&*name).is_none_or(|version| **version != *resource.version) {
                self.has.insert(name.to_string(), resource.version.to_string());
                batch.add(&name, resource, other_names(kind, resource));
            }
        }
        batch
    }
}

fn meant_by(kind: Kind, world: &World, name: &str) -> Vec<Arc<str>> {
    match kind {
        Kind::Address => world.meant_by(name),
        Kind::Authorization => {
            world.authorizations.get(name).map(|_| name.into()).into_iter().collect()
        }
    }
}

/// So that a client that asked for an address sees that this is the answer.
fn other_names(kind: Kind, resource: &Resource) -> Vec<String> {
    match kind {
        Kind::Address => resource.address().as_ref().map(aliases).unwrap_or_default(),
        Kind::Authorization => Vec::new(),
    }
}
