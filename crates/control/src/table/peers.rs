//! PeerAuthentications, and the denials that workloads list because of them.

use std::collections::{BTreeMap, BTreeSet};

use mesh::PolicyKey;

use super::{Kind, Table};
use crate::facts::{PeerFacts, PodFacts};
use crate::translate::{
    Demand, Peer, PeerProblem, STATIC_STRICT, Widths, demand, peer, static_strict,
    strict_in_place_of,
};
use crate::world::Resource;

/// What became of a PeerAuthentication, for the log.
#[derive(Debug)]
pub(crate) enum PeerOutcome {
    InForce,
    /// It is malformed; the last good version stays in force.
    Kept(PeerProblem),
    /// It is malformed and there is no good version of it: it counts as STRICT.
    Strict(PeerProblem),
}

/// One of them, as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    peer: Peer,
    /// Has it ever been well formed?
    read: Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Well,
    Never,
}

impl Table {
    pub(crate) fn peer_seen(&mut self, facts: &PeerFacts) -> PeerOutcome {
        let good_before = self.peers.get(&facts.key).is_some_and(|it| it.read == Read::Well);
        let (counted, outcome) = match peer(facts) {
            Ok(peer) => (Counted { peer, read: Read::Well }, PeerOutcome::InForce),
            Err(problem) if good_before => return PeerOutcome::Kept(problem),
            Err(problem) => {
                let peer = strict_in_place_of(facts);
                (Counted { peer, read: Read::Never }, PeerOutcome::Strict(problem))
            }
        };
        if self.peers.get(&facts.key) != Some(&counted) {
            self.peers.insert(facts.key.clone(), counted);
            self.peers_changed(facts.key.namespace());
        }
        outcome
    }

    pub(crate) fn peer_gone(&mut self, key: &PolicyKey) {
        if self.peers.remove(key).is_some() {
            self.peers_changed(key.namespace());
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn peers_listed(&mut self, peers: &[PeerFacts]) -> Vec<PeerOutcome> {
        let present: BTreeSet<_> = peers.iter().map(|peer| &peer.key).collect();
        let gone: Vec<_> =
            self.peers.keys().filter(|key| !present.contains(key)).cloned().collect();
        for key in gone {
            self.peer_gone(&key);
        }
        let outcomes = peers.iter().map(|peer| self.peer_seen(peer)).collect();
        self.list_complete(Kind::Peers);
        outcomes
    }

    /// The cluster does not know what a PeerAuthentication is.
    pub(crate) fn no_peers_exist(&mut self) {
        self.list_complete(Kind::Peers);
    }

    /// Have they been listed, or been found not to exist?
    pub(crate) fn peers_are_known(&self) -> bool {
        self.listed.contains(&Kind::Peers)
    }

    /// Key of the denial that this pod's workload lists because of them.
    pub(super) fn demanded_of(&self, pod: &PodFacts) -> Option<String> {
        let root = &self.names.root_namespace;
        let oldest = |namespace: &str, matches: &dyn Fn(&Peer) -> bool| {
            let near = self.peers.values().map(|it| &it.peer);
            let near = near.filter(|it| it.key.namespace() == namespace && matches(it));
            near.max_by_key(|it| it.precedence())
        };
        let selects = |it: &Peer| it.selector.as_ref().is_some_and(|it| it.selects(&pod.labels));
        let in_root = pod.namespace == *root;
        let widths = Widths {
            mesh: oldest(root, &|it| it.selector.is_none()),
            namespace: oldest(&pod.namespace, &|it| it.selector.is_none() && !in_root),
            workload: oldest(&pod.namespace, &|it| selects(it) && !in_root),
        };
        match demand(widths) {
            Demand::Nothing => None,
            Demand::Strict => Some(format!("{root}/{STATIC_STRICT}")),
            Demand::Own(own) => Some(format!("{}/{}", own.namespace, own.name)),
        }
    }

    /// Their denials, and the workloads that may list them, are worked out anew.
    fn peers_changed(&mut self, namespace: &str) {
        self.publish_denials();
        let mesh_wide = namespace == self.names.root_namespace;
        let near = self.pods.iter().filter(|(_, pod)| mesh_wide || pod.namespace == namespace);
        let near: Vec<_> = near.map(|(key, _)| key.clone()).collect();
        near.iter().for_each(|pod| self.publish_pod(pod));
    }

    fn publish_denials(&mut self) {
        let wanted = self.denials();
        let former = std::mem::take(&mut self.denials);
        for name in former.iter().filter(|name| !wanted.contains_key(*name)) {
            self.world.authorizations.remove(name);
        }
        for (name, resource) in &wanted {
            self.world.authorizations.insert(name, resource.clone());
        }
        self.denials = wanted.into_keys().collect();
    }

    /// All that workloads could list now.
    fn denials(&self) -> BTreeMap<String, Resource> {
        let mut denials = BTreeMap::new();
        if self.peers.is_empty() {
            return denials;
        }
        let root = &self.names.root_namespace;
        denials.insert(format!("{root}/{STATIC_STRICT}"), Resource::new(&static_strict(root)));
        let widest = |namespace: &str| {
            let near = self.peers.values().map(|it| &it.peer);
            let near = near.filter(|it| it.key.namespace() == namespace && it.selector.is_none());
            near.max_by_key(|it| it.precedence())
        };
        for Counted { peer, .. } in self.peers.values() {
            let namespace = peer.key.namespace();
            if peer.selector.is_none() || namespace == root {
                continue;
            }
            let widths =
                Widths { mesh: widest(root), namespace: widest(namespace), workload: Some(peer) };
            if let Demand::Own(own) = demand(widths) {
                denials.insert(format!("{}/{}", own.namespace, own.name), Resource::new(&own));
            }
        }
        denials
    }
}
