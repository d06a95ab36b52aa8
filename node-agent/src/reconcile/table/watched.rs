//! PURE. What the API watch has seen, and what that makes of the table.

use std::collections::BTreeSet;

use super::Table;
use crate::facts::{NamespaceFacts, PodFacts, PodUid};
use crate::reconcile::pod::Pod;

/// Something the API watch has seen.
#[derive(Clone, Debug)]
pub enum Fact {
    /// All pods of the node.
    Pods(Vec<PodFacts>),
    /// One pod is new or has changed.
    Pod(PodFacts),
    /// One pod is gone.
    PodGone(PodUid),
    /// All namespaces.
    Namespaces(Vec<NamespaceFacts>),
    /// One namespace is new or has changed.
    Namespace(NamespaceFacts),
    /// One namespace is gone.
    NamespaceGone(String),
}

/// Pods that are remembered to be gone: more than end while one ADD is under way.
pub(super) const GONE: usize = 4096;

impl Table {
    /// Takes in what the watch has seen, and says which pods may need something now.
    pub fn observe(&mut self, fact: Fact) -> Vec<PodUid> {
        match fact {
            Fact::Pods(all) => self.all_pods(all),
            Fact::Pod(facts) => self.pod_seen(facts).into_iter().collect(),
            Fact::PodGone(uid) => self.pod_gone(&uid).into_iter().collect(),
            Fact::Namespaces(mut all) => {
                self.namespaces_listed = true;
                all.iter_mut().for_each(|namespace| self.slim(&mut namespace.labels));
                self.namespaces = all.into_iter().map(|ns| (ns.name.clone(), ns)).collect();
                self.pods.keys().cloned().collect()
            }
            Fact::Namespace(mut namespace) => {
                self.slim(&mut namespace.labels);
                let name = namespace.name.clone();
                let before = self.namespaces.insert(name.clone(), namespace);
                if before == self.namespaces.get(&name).cloned() {
                    return Vec::new();
                }
                self.pods_of(&name)
            }
            Fact::NamespaceGone(name) => {
                self.namespaces.remove(&name);
                self.pods_of(&name)
            }
        }
    }

    fn all_pods(&mut self, all: Vec<PodFacts>) -> Vec<PodUid> {
        let seen: BTreeSet<PodUid> = all.iter().map(|facts| facts.uid.clone()).collect();
        // What an earlier life of the agent knew is either in the first list or gone.
        let first = !self.pods_listed;
        self.pods_listed = true;
        let mut absent = Vec::new();
        for (uid, pod) in self.pods.iter_mut().filter(|(uid, _)| !seen.contains(*uid)) {
            // A list may be older than what the plugin made us look up; the next one is not.
            let expected = pod.listed || pod.missed || (first && pod.facts.is_none());
            pod.missed = true;
            if expected {
                absent.push(uid.clone());
            }
        }
        let changed: Vec<PodUid> = all.into_iter().filter_map(|f| self.pod_seen(f)).collect();
        absent.iter().filter_map(|uid| self.pod_gone(uid)).chain(changed).collect()
    }

    fn pod_seen(&mut self, mut facts: PodFacts) -> Option<PodUid> {
        self.slim(&mut facts.labels);
        let uid = facts.uid.clone();
        // A list may come from a server that lags behind; what is shown is not gone.
        self.gone.retain(|gone| *gone != uid);
        let pod = self.entry(&uid);
        pod.listed = true;
        if pod.facts.as_ref() == Some(&facts) {
            return None;
        }
        let news = pod.learn(facts);
        pod.due = true;
        self.worth_remembering |= news;
        Some(uid)
    }

    fn pod_gone(&mut self, uid: &PodUid) -> Option<PodUid> {
        if self.gone.len() >= GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(uid.clone());
        let pod = self.pods.get_mut(uid)?;
        pod.facts = None;
        pod.ending = true;
        Some(uid.clone())
    }

    fn pods_of(&self, namespace: &str) -> Vec<PodUid> {
        let there =
            |pod: &Pod| pod.facts.as_ref().is_some_and(|facts| facts.name.namespace == namespace);
        self.pods.iter().filter(|(_, pod)| there(pod)).map(|(uid, _)| uid.clone()).collect()
    }
}
