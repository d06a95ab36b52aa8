//! From all policies to one decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::matcher::Facts;
use super::{Action, Connection, Enforcement, Policy, PolicyKey, Scope};
use crate::workload::Workload;

/// May a connection go on?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No.
    Deny(Denial),
}

/// Why a connection was denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A DENY policy matches.
    #[error("denied by policy {0}")]
    Policy(PolicyKey),
    /// There are ALLOW policies and none matches.
    #[error("no ALLOW policy matches")]
    NotAllowed,
    /// The workload lists a policy that has not arrived: nobody knows what it forbids.
    #[error("policy {0} is not known yet")]
    Unknown(PolicyKey),
    /// A policy that applies, or might, came in a form that cannot be used.
    #[error("policy {0} was rejected, so nobody knows what it forbids")]
    Rejected(PolicyKey),
}

/// What a policy means that a workload lists and that has not arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// It might be a DENY: nothing passes until it is known.
    #[default]
    Deny,
    /// Nothing, as in Istio: what it would have denied passes, and if it is the only ALLOW
    /// policy, so does everything. A rejected policy denies all the same: that one has
    /// arrived, and waiting does not help.
    Skip,
}

/// All policies, found by name and by the namespace that they apply to without being
/// listed, so that a decision does not walk over those of other namespaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicySet {
    by_key: HashMap<PolicyKey, Arc<Policy>>,
    global: Vec<Arc<Policy>>,
    by_namespace: HashMap<Arc<str>, Vec<Arc<Policy>>>,
    /// Policies of which no version could be used, and what they are about.
    rejected: BTreeMap<PolicyKey, Scope>,
}

impl PolicySet {
    /// Adds a policy or replaces the one of that name.
    pub(crate) fn insert(&mut self, policy: Policy) {
        self.remove(policy.key());
        let policy = Arc::new(policy);
        match policy.scope() {
            Scope::Global => insert_sorted(&mut self.global, &policy),
            Scope::Namespace => {
                let namespace = policy.key().namespace().into();
                insert_sorted(self.by_namespace.entry(namespace).or_default(), &policy);
            }
            Scope::Selected => {}
        }
        self.by_key.insert(policy.key().clone(), policy);
    }

    /// Remembers that there is a policy which nobody can enforce, unless an earlier
    /// version of it can be.
    pub(crate) fn reject(&mut self, key: PolicyKey, scope: Scope) {
        if !self.by_key.contains_key(&key) {
            self.rejected.insert(key, scope);
        }
    }

    /// Forgets a policy.
    pub(crate) fn remove(&mut self, key: &PolicyKey) {
        self.rejected.remove(key);
        if self.by_key.remove(key).is_none() {
            return;
        }
        self.global.retain(|policy| policy.key() != key);
        if let Some(list) = self.by_namespace.get_mut(key.namespace()) {
            list.retain(|policy| policy.key() != key);
            if list.is_empty() {
                self.by_namespace.remove(key.namespace());
            }
        }
    }

    /// All policies, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    /// Any DENY that matches denies and is named. Then a policy denies that was rejected, or
    /// that is listed and not known, because it might be a DENY. Then, if there are ALLOW
    /// policies, one of them must match.
    pub(crate) fn decide(
        &self,
        destination: &Workload,
        connection: &Connection,
        unknown: UnknownPolicy,
    ) -> Decision {
        let facts = Facts::of(connection);
        let enforced = |action| {
            self.applicable(destination).filter(move |policy| {
                policy.action == action && policy.enforcement == Enforcement::Enforced
            })
        };
        let denies = |policy: &&Arc<Policy>| policy.rules.match_facts(&facts);
        if let Some(policy) = enforced(Action::Deny).find(denies) {
            return Decision::Deny(Denial::Policy(policy.key().clone()));
        }
        if let Some(key) = self.rejected_for(destination) {
            return Decision::Deny(Denial::Rejected(key.clone()));
        }
        let missing = destination.policies.iter().find(|key| !self.by_key.contains_key(*key));
        if let (UnknownPolicy::Deny, Some(key)) = (unknown, missing) {
            return Decision::Deny(Denial::Unknown(key.clone()));
        }
        let mut allows = enforced(Action::Allow).peekable();
        if allows.peek().is_none() || allows.any(|policy| policy.rules.match_facts(&facts)) {
            Decision::Allow
        } else {
            Decision::Deny(Denial::NotAllowed)
        }
    }

    fn rejected_for(&self, workload: &Workload) -> Option<&PolicyKey> {
        let applies = |(key, scope): &(&PolicyKey, &Scope)| match scope {
            Scope::Global => true,
            Scope::Namespace => *key.namespace() == *workload.namespace,
            Scope::Selected => workload.policies.contains(key),
        };
        self.rejected.iter().find(applies).map(|(key, _)| key)
    }

    /// Policies of the whole mesh, of the workload's namespace, and those it lists.
    pub(crate) fn applicable(&self, workload: &Workload) -> impl Iterator<Item = &Arc<Policy>> {
        let of_namespace =
            self.by_namespace.get(&workload.namespace).map_or(&[][..], Vec::as_slice);
        let listed = workload.policies.iter().filter_map(|key| self.by_key.get(key));
        self.global.iter().chain(of_namespace).chain(listed)
    }
}

/// Keeps a list in the order of names: of several DENY policies that match, it is always
/// the same one that is named.
fn insert_sorted(list: &mut Vec<Arc<Policy>>, policy: &Arc<Policy>) {
    let at = list.partition_point(|other| other.key() < policy.key());
    list.insert(at, Arc::clone(policy));
}
