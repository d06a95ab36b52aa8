//! What is known about the cluster, and what follows from it. Pure: the watch tells it
//! what it saw, and takes a snapshot when it is complete.
//!
//! Until then nothing is worked out; afterwards a change of one object touches only the
//! resources that it has a part in.

mod index;
mod peers;
mod pods;
mod policies;
mod services;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mesh::PolicyKey;
use mesh::proto::workload::Locality;

use crate::facts::{NodeFacts, ServiceFacts};
use crate::translate::{Names, NotSent, PolicyProblem, locality};
use crate::world::World;

pub(crate) use peers::PeerOutcome;

use index::Index;
use peers::Counted;
use pods::Pods;
use policies::InForce;
use services::Slices;

/// Everything known, each kind of objects completely or not yet.
#[derive(Debug)]
pub(crate) struct Table {
    names: Names,
    pods: Pods,
    nodes: HashMap<String, NodeFacts>,
    services: HashMap<String, ServiceFacts>,
    /// Services by namespace.
    services_in: Index<String>,
    slices: Slices,
    /// Policies that are sent.
    policies: BTreeMap<PolicyKey, InForce>,
    peers: BTreeMap<PolicyKey, Counted>,
    /// Names of the denials that are sent because of them.
    denials: BTreeSet<String>,
    world: World,
    listed: BTreeSet<Kind>,
}

/// A kind of objects that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pods,
    Nodes,
    Services,
    Slices,
    Policies,
    /// PeerAuthentications.
    Peers,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Pods, Self::Nodes, Self::Services, Self::Slices, Self::Policies, Self::Peers];
}

/// What became of a policy, for the log.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is sent; rules with these numbers only partly, or not at all.
    Sent { narrowed: Vec<usize>, dropped: Vec<usize> },
    /// It is not for us.
    NotSent(NotSent),
    /// It is malformed; the last good version stays in force.
    Kept(PolicyProblem),
    /// It is malformed and there is no good version of it: what it is about is denied.
    Denied(PolicyProblem),
    /// It is malformed, but would not be enforced here anyway.
    Refused(PolicyProblem),
}

impl Table {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            pods: Pods::default(),
            nodes: HashMap::new(),
            services: HashMap::new(),
            services_in: Index::default(),
            slices: Slices::default(),
            policies: BTreeMap::new(),
            peers: BTreeMap::new(),
            denials: BTreeSet::new(),
            world: World::default(),
            listed: BTreeSet::new(),
        }
    }

    /// The present moment, once all initial lists were complete: a part of the world must
    /// not be taken for all of it.
    pub(crate) fn snapshot(&self) -> Option<World> {
        self.complete().then(|| self.world.clone())
    }

    pub(crate) fn node_seen(&mut self, node: NodeFacts) {
        let name = node.name.clone();
        if self.nodes.get(&name) != Some(&node) {
            self.nodes.insert(name.clone(), node);
            self.republish_on(&name);
        }
    }

    pub(crate) fn node_gone(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.republish_on(name);
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn nodes_listed(&mut self, nodes: Vec<NodeFacts>) {
        let present: BTreeSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
        for name in absent(self.nodes.keys(), &present) {
            self.node_gone(&name);
        }
        for node in nodes {
            self.node_seen(node);
        }
        self.list_complete(Kind::Nodes);
    }

    fn complete(&self) -> bool {
        self.listed.len() == Kind::ALL.len()
    }

    /// The last list to become complete has everything worked out.
    fn list_complete(&mut self, kind: Kind) {
        if !self.listed.insert(kind) || !self.complete() {
            return;
        }
        let services: Vec<_> = self.services.keys().cloned().collect();
        services.iter().for_each(|key| self.publish_service(key));
        self.pods.keys().iter().for_each(|key| self.publish_pod(key));
        self.slices.keys().iter().for_each(|key| self.publish_slice(key));
    }

    /// What is on a node has got another locality.
    fn republish_on(&mut self, node: &str) {
        self.pods.on_node(node).iter().for_each(|key| self.publish_pod(key));
        self.slices.on_node(node).iter().for_each(|key| self.publish_slice(key));
    }

    fn locality_of(&self, node: &str) -> Option<Locality> {
        self.nodes.get(node).and_then(locality)
    }
}

/// Those keys that are not in a list.
fn absent<'a>(known: impl Iterator<Item = &'a String>, present: &BTreeSet<String>) -> Vec<String> {
    known.filter(|key| !present.contains(*key)).cloned().collect()
}

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
