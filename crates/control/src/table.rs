//! What is known about the cluster, and what follows from it. Pure: the watch tells it
//! what it saw, and takes a snapshot when it is complete.

use std::collections::{BTreeMap, HashMap, HashSet};

use mesh::PolicyKey;
use mesh::proto::workload::{Address, address};

use crate::facts::{PodFacts, PolicyFacts};
use crate::translate::{
    Names, NotSent, PolicyProblem, Selector, Translated, policy, uid, workload,
};
use crate::world::{Resource, World};

/// Two kinds of objects, each known completely or not yet.
#[derive(Debug)]
pub(crate) struct Table {
    names: Names,
    pods: HashMap<String, PodFacts>,
    /// Policies that are sent; with a selector, if they have one.
    policies: BTreeMap<PolicyKey, Option<Selector>>,
    world: World,
    listed: Listed,
}

/// Which initial lists have been seen to their end.
#[derive(Debug, Default)]
struct Listed {
    pods: bool,
    policies: bool,
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
    /// It is malformed and there is no good version of it.
    Refused(PolicyProblem),
}

impl Table {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            pods: HashMap::new(),
            policies: BTreeMap::new(),
            world: World::default(),
            listed: Listed::default(),
        }
    }

    /// The present moment, once all initial lists were complete: a part of the world must
    /// not be taken for all of it.
    pub(crate) fn snapshot(&self) -> Option<World> {
        (self.listed.pods && self.listed.policies).then(|| self.world.clone())
    }

    pub(crate) fn pod_seen(&mut self, pod: PodFacts) {
        self.world.place(&pod);
        self.publish(&pod);
        self.pods.insert(pod.key(), pod);
    }

    pub(crate) fn pod_gone(&mut self, key: &str) {
        if let Some(pod) = self.pods.remove(key) {
            self.world.displace(key);
            self.world.addresses.remove(&uid(&self.names, &pod));
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn pods_listed(&mut self, pods: Vec<PodFacts>) {
        let present: HashSet<_> = pods.iter().map(PodFacts::key).collect();
        let gone: Vec<_> =
            self.pods.keys().filter(|key| !present.contains(*key)).cloned().collect();
        for key in gone {
            self.pod_gone(&key);
        }
        for pod in pods {
            self.pod_seen(pod);
        }
        self.listed.pods = true;
    }

    pub(crate) fn policy_seen(&mut self, facts: &PolicyFacts) -> Outcome {
        let key = &facts.key;
        match policy(&self.names, facts) {
            Ok(Translated::Sent(sent)) => {
                self.world.authorizations.insert(&key.to_string(), Resource::new(&sent.message));
                let former = self.policies.insert(key.clone(), sent.selector.clone()).flatten();
                if former != sent.selector {
                    self.republish_selected(key, &[former, sent.selector]);
                }
                Outcome::Sent { narrowed: sent.narrowed, dropped: sent.dropped }
            }
            Ok(Translated::NotSent(reason)) => {
                self.policy_gone(key);
                Outcome::NotSent(reason)
            }
            Err(problem) if self.policies.contains_key(key) => Outcome::Kept(problem),
            Err(problem) => Outcome::Refused(problem),
        }
    }

    pub(crate) fn policy_gone(&mut self, key: &PolicyKey) {
        if let Some(selector) = self.policies.remove(key) {
            self.world.authorizations.remove(&key.to_string());
            self.republish_selected(key, &[selector]);
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn policies_listed(&mut self, policies: &[PolicyFacts]) -> Vec<Outcome> {
        let present: HashSet<_> = policies.iter().map(|policy| &policy.key).collect();
        let gone: Vec<_> =
            self.policies.keys().filter(|key| !present.contains(key)).cloned().collect();
        for key in gone {
            self.policy_gone(&key);
        }
        let outcomes = policies.iter().map(|policy| self.policy_seen(policy)).collect();
        self.listed.policies = true;
        outcomes
    }

    /// The cluster does not know what a policy is. Says so only at the start: policies
    /// that were there before are not taken away by this.
    pub(crate) fn no_policies_exist(&mut self) {
        self.listed.policies = true;
    }

    /// Have the policies been listed, or been found not to exist?
    pub(crate) fn policies_are_known(&self) -> bool {
        self.listed.policies
    }

    /// Publishes the workload that a pod is, or withdraws it when it is none any more.
    fn publish(&mut self, pod: &PodFacts) {
        let uid = uid(&self.names, pod);
        match workload(&self.names, pod, self.selecting(pod)) {
            Some(message) => {
                let address = Address { r#type: Some(address::Type::Workload(message)) };
                self.world.addresses.insert(&uid, Resource::new(&address));
            }
            None => self.world.addresses.remove(&uid),
        }
    }

    /// Publishes again the workloads that one of these selectors of a policy selects.
    fn republish_selected(&mut self, key: &PolicyKey, selectors: &[Option<Selector>]) {
        let selected: Vec<_> = self
            .pods
            .values()
            .filter(|pod| self.reaches(key, pod))
            .filter(|pod| selectors.iter().flatten().any(|it| it.selects(&pod.labels)))
            .cloned()
            .collect();
        for pod in selected {
            self.publish(&pod);
        }
    }

    /// Keys of the policies that this pod's workload lists, in their order.
    fn selecting(&self, pod: &PodFacts) -> Vec<String> {
        self.policies
            .iter()
            .filter(|(key, _)| self.reaches(key, pod))
            .filter(|(_, selector)| selector.as_ref().is_some_and(|it| it.selects(&pod.labels)))
            .map(|(key, _)| key.to_string())
            .collect()
    }

    /// A policy selects in its own namespace; one of the root namespace everywhere.
    fn reaches(&self, key: &PolicyKey, pod: &PodFacts) -> bool {
        key.namespace() == pod.namespace || key.namespace() == self.names.root_namespace
    }
}

#[cfg(test)]
mod tests;
