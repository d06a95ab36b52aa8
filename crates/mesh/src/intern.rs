//! Equal values kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::identity::Identity;
use crate::policy::PolicyKey;
use crate::service::Service;
use crate::workload::{Locality, Membership, Shared, Workload};

/// Below this many values nobody looks for unused ones.
const SMALL: usize = 1024;

/// What workloads share with many others: all that comes from one template, their nodes,
/// and of templates the namespaces, clusters, identities and so on. It belongs to who writes a view: a clone begins empty, because published
/// views are only read.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    shared: Kept<Shared>,
    texts: Kept<str>,
    identities: HashSet<Identity>,
    localities: Kept<Locality>,
    memberships: Kept<[Membership]>,
    policies: Kept<[PolicyKey]>,
}

impl Interner {
    /// Replaces what the workload shares with others by the one copy of it.
    pub(crate) fn workload(&mut self, workload: &mut Workload) {
        self.texts.share(&mut workload.node);
        self.locality(&mut workload.locality);
        let shared = workload.shared_mut();
        if !self.shared.contains(shared) {
            self.parts(Arc::make_mut(shared));
        }
        self.shared.share(shared);
    }

    /// The same for what is seen for the first time: parts of it may be known.
    fn parts(&mut self, shared: &mut Shared) {
        for text in [
            &mut shared.namespace,
            &mut shared.network,
            &mut shared.hostname,
            &mut shared.cluster,
            &mut shared.canonical_name,
            &mut shared.canonical_revision,
            &mut shared.owner,
        ] {
            self.texts.share(text);
        }
        self.identity(&mut shared.identity);
        self.memberships(&mut shared.services);
        self.policies.share(&mut shared.policies);
    }

    /// The same for a service.
    pub(crate) fn service(&mut self, service: &mut Service) {
        service.key.parts_mut().into_iter().for_each(|text| self.texts.share(text));
        self.texts.share(&mut service.name);
        service.addresses.iter_mut().for_each(|it| self.texts.share(&mut it.network));
        service.addresses.shrink_to_fit();
        service.subject_alt_names.shrink_to_fit();
        service.subject_alt_names.iter_mut().for_each(|it| self.identity(it));
    }

    /// The keys in a list that is seen for the first time are those of services.
    fn memberships(&mut self, list: &mut Arc<[Membership]>) {
        if !self.memberships.contains(list) {
            for membership in Arc::make_mut(list) {
                membership.service.parts_mut().into_iter().for_each(|it| self.texts.share(it));
            }
        }
        self.memberships.share(list);
    }

    fn locality(&mut self, locality: &mut Arc<Locality>) {
        if !self.localities.contains(locality) {
            let Locality { region, zone, subzone } = Arc::make_mut(locality);
            [region, zone, subzone].into_iter().for_each(|text| self.texts.share(text));
        }
        self.localities.share(locality);
    }

    fn identity(&mut self, identity: &mut Identity) {
        if let Some(kept) = self.identities.get(identity) {
            *identity = kept.clone();
            return;
        }
        tidy(&mut self.identities, Identity::is_shared);
        self.identities.insert(identity.clone());
    }
}

impl Clone for Interner {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Values of one kind.
#[derive(Debug)]
struct Kept<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized + Eq + Hash> Kept<T> {
    fn contains(&self, value: &T) -> bool {
        self.0.contains(value)
    }

    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(kept) = self.0.get(&**value) {
            *value = Arc::clone(kept);
            return;
        }
        tidy(&mut self.0, |it| Arc::strong_count(it) > 1);
        self.0.insert(Arc::clone(value));
    }
}

/// A full set forgets what nobody else has any more, instead of growing. Where that frees
/// little it grows as well, so that the next search is far away.
fn tidy<T: Eq + Hash>(set: &mut HashSet<T>, in_use: impl Fn(&T) -> bool) {
    if set.len() < SMALL || set.len() < set.capacity() {
        return;
    }
    set.retain(in_use);
    if set.len() > set.capacity() / 2 {
        set.reserve(set.len());
    }
}

impl<T: ?Sized> Default for Kept<T> {
    fn default() -> Self {
        Self(HashSet::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_are_forgotten() {
        let mut kept = Kept::<str>::default();
        let (mut first, mut second): (Arc<str>, Arc<str>) = ("n1".into(), "n1".into());
        kept.share(&mut first);
        kept.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..100_000 {
            kept.share(&mut number.to_string().into());
        }
        assert!(kept.0.len() < 4 * SMALL, "{} are kept", kept.0.len());
        let mut third: Arc<str> = "n1".into();
        kept.share(&mut third);
        assert!(Arc::ptr_eq(&first, &third), "what is in use stays");
    }
}
