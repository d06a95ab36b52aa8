//! Policies, and which workloads list them.

use std::collections::BTreeSet;

use mesh::PolicyKey;
use mesh::proto::security::Authorization;

use super::{Kind, Outcome, Table};
use crate::facts::{PodFacts, PolicyFacts};
use crate::translate::{Selector, Translated, deny_in_place_of, policy};
use crate::world::Resource;

/// A policy that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    /// Which workloads list it; `None`: it applies without being listed.
    selector: Option<Selector>,
    quality: Quality,
}

/// What is sent under a policy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quality {
    /// The policy, or its last good version.
    Good,
    /// The denial of everything that it is about, because it cannot be read.
    Denial,
}

impl Table {
    pub(crate) fn policy_seen(&mut self, facts: &PolicyFacts) -> Outcome {
        let key = &facts.key;
        match policy(&self.names, facts) {
            Ok(Translated::Sent(sent)) => {
                let in_force = InForce { selector: sent.selector, quality: Quality::Good };
                self.enforce(key, &sent.message, in_force);
                Outcome::Sent { narrowed: sent.narrowed, dropped: sent.dropped }
            }
            Ok(Translated::NotSent(reason)) => {
                self.policy_gone(key);
                Outcome::NotSent(reason)
            }
            Err(problem) if self.policies.get(key).is_some_and(InForce::is_good) => {
                Outcome::Kept(problem)
            }
            Err(problem) => match deny_in_place_of(&self.names, facts) {
                Some(denial) => {
                    let in_force = InForce { selector: denial.selector, quality: Quality::Denial };
                    self.enforce(key, &denial.message, in_force);
                    Outcome::Denied(problem)
                }
                None => {
                    self.policy_gone(key);
                    Outcome::Refused(problem)
                }
            },
        }
    }

    pub(crate) fn policy_gone(&mut self, key: &PolicyKey) {
        if let Some(former) = self.policies.remove(key) {
            self.world.authorizations.remove(&key.to_string());
            self.republish_selected(key, &[former.selector]);
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn policies_listed(&mut self, policies: &[PolicyFacts]) -> Vec<Outcome> {
        let present: BTreeSet<_> = policies.iter().map(|policy| &policy.key).collect();
        let gone: Vec<_> =
            self.policies.keys().filter(|key| !present.contains(key)).cloned().collect();
        for key in gone {
            self.policy_gone(&key);
        }
        let outcomes = policies.iter().map(|policy| self.policy_seen(policy)).collect();
        self.list_complete(Kind::Policies);
        outcomes
    }

    /// The cluster does not know what a policy is. Says so only at the start: policies
    /// that were there before are not taken away by this.
    pub(crate) fn no_policies_exist(&mut self) {
        self.list_complete(Kind::Policies);
    }

    /// Have the policies been listed, or been found not to exist?
    pub(crate) fn policies_are_known(&self) -> bool {
        self.listed.contains(&Kind::Policies)
    }

    /// Keys of the policies that this pod's workload lists, in their order.
    pub(super) fn selecting(&self, pod: &PodFacts) -> Vec<String> {
        let near = self.policies.iter().filter(|(key, _)| self.reaches(key, pod));
        near.filter(|(_, it)| it.selector.as_ref().is_some_and(|it| it.selects(&pod.labels)))
            .map(|(key, _)| key.to_string())
            .collect()
    }

    fn enforce(&mut self, key: &PolicyKey, message: &Authorization, in_force: InForce) {
        self.world.authorizations.insert(&key.to_string(), Resource::new(message));
        let selector = in_force.selector.clone();
        let former = self.policies.insert(key.clone(), in_force).and_then(|it| it.selector);
        if former != selector {
            self.republish_selected(key, &[former, selector]);
        }
    }

    /// Publishes again the workloads that one of these selectors of a policy selects.
    fn republish_selected(&mut self, key: &PolicyKey, selectors: &[Option<Selector>]) {
        let near = self.pods.iter().filter(|(_, pod)| self.reaches(key, pod));
        let selected =
            near.filter(|(_, pod)| selectors.iter().flatten().any(|it| it.selects(&pod.labels)));
        let selected: Vec<_> = selected.map(|(key, _)| key.clone()).collect();
        selected.iter().for_each(|pod| self.publish_pod(pod));
    }

    /// A policy selects in its own namespace; one of the root namespace everywhere.
    fn reaches(&self, key: &PolicyKey, pod: &PodFacts) -> bool {
        key.namespace() == pod.namespace || key.namespace() == self.names.root_namespace
    }
}

impl InForce {
    fn is_good(&self) -> bool {
        self.quality == Quality::Good
    }
}
