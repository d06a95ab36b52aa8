//! PURE. What the agent believes about every pod of its node.

mod watched;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use capture::Options;

use super::memory::Remembered;
use super::plan::{Action, plan};
use super::pod::{Attachment, Pod, State};
use crate::enrollment::{self, Enrollment, Labels, Mistake, Reason, Settings, enrollment};
use crate::facts::{NamespaceFacts, PodFacts, PodUid};
use crate::ztunnel_link::Ack;

pub use watched::Fact;

/// All pods of the node and all namespaces.
#[derive(Debug, Default)]
pub struct Table {
    pods: BTreeMap<PodUid, Pod>,
    namespaces: HashMap<String, NamespaceFacts>,
    /// Those that the API has shown to be gone, the latest last. Their UIDs do not return.
    gone: VecDeque<PodUid>,
    pods_listed: bool,
    namespaces_listed: bool,
    /// Left by an earlier life of the agent, of pods that are not seen yet.
    recalled: BTreeMap<PodUid, Remembered>,
    worth_remembering: bool,
    label_keys: BTreeSet<String>,
}

/// What became of a sandbox that the plugin told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The pod is known with it.
    Known,
    /// The pod is gone.
    Gone,
}

impl Table {
    /// Empty, but for what an earlier life of the agent has left. Of labels only those
    /// with these keys are kept.
    #[must_use]
    pub fn recalling(recalled: BTreeMap<PodUid, Remembered>, label_keys: BTreeSet<String>) -> Self {
        Self { recalled, label_keys, ..Self::default() }
    }

    /// Something that the next life of the agent must know has changed.
    pub fn worth_remembering(&mut self) {
        self.worth_remembering = true;
    }

    /// Whether something has changed since it was asked last.
    pub fn take_worth_remembering(&mut self) -> bool {
        std::mem::take(&mut self.worth_remembering)
    }

    /// What the next life of the agent must know. Pods of the last one that were not seen
    /// yet are kept until the first list has told which there are.
    #[must_use]
    pub fn remembered(&self) -> BTreeMap<PodUid, Remembered> {
        let recalled = self.recalled.iter().filter(|_| !self.pods_listed);
        let recalled = recalled.map(|(uid, remembered)| (uid.clone(), remembered.clone()));
        let own = |(uid, pod): (&PodUid, &Pod)| Some((uid.clone(), Remembered::of(pod)?));
        recalled.chain(self.pods.iter().filter_map(own)).collect()
    }

    fn slim(&self, labels: &mut Labels) {
        labels.retain(|key, _| self.label_keys.contains(key));
    }

    fn entry(&mut self, uid: &PodUid) -> &mut Pod {
        let recalled = &mut self.recalled;
        let begin = || recalled.remove(uid).map(Remembered::pod).unwrap_or_default();
        self.pods.entry(uid.clone()).or_insert_with(begin)
    }

    /// Whether the first lists have been seen.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.pods_listed && self.namespaces_listed
    }

    /// One pod.
    #[must_use]
    pub fn get(&self, uid: &PodUid) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// One pod, to be changed by who has acted on it.
    pub fn get_mut(&mut self, uid: &PodUid) -> Option<&mut Pod> {
        self.pods.get_mut(uid)
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = (&PodUid, &Pod)> {
        self.pods.iter()
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        self.namespaces.get(name)
    }

    /// The plugin has told where a pod's namespace is. A sandbox that was not known is
    /// new, and nothing of ours is in it. Facts that the plugin's caller had to fetch
    /// stand until the watch shows the pod. Not entered is a pod that the API has shown to
    /// be gone: nobody would ever end it again.
    pub fn attach(&mut self, uid: &PodUid, mut facts: PodFacts, attachment: Attachment) -> Entered {
        if self.gone.contains(uid) {
            return Entered::Gone;
        }
        self.slim(&mut facts.labels);
        let pod = self.entry(uid);
        let known = pod.attachment.as_ref().map(|a| &a.container_id);
        if known != Some(&attachment.container_id) {
            pod.state = State::Outside;
            pod.applied = None;
            pod.trouble = None;
            pod.aging = None;
            pod.lookups_owed = false;
        }
        pod.attachment = Some(attachment);
        pod.ending = false;
        pod.missed = false;
        if !pod.listed || pod.facts.is_none() {
            let news = pod.learn(facts);
            self.worth_remembering |= news;
        }
        Entered::Known
    }

    /// The plugin told this to an earlier life of the agent.
    pub fn restore(&mut self, uid: &PodUid, attachment: Attachment) {
        // The first list may have come before, and lacked it.
        let is_gone = self.pods_listed && !self.pods.contains_key(uid);
        let pod = self.entry(uid);
        pod.attachment.get_or_insert(attachment);
        if is_gone {
            self.pod_gone(uid);
        }
    }

    /// This sandbox of the pod goes away. That of another one may be told late, when the next
    /// is being made.
    pub fn end(&mut self, uid: &PodUid, container_id: &str) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        // Of one that was only found nobody knows which it is.
        let own = |id: &str| id.is_empty() || id == container_id;
        pod.ending |= pod.attachment.as_ref().is_none_or(|its| own(&its.container_id));
    }

    /// Nothing of the pod's sandbox is kept any more. A pod that the API still shows may
    /// get another sandbox.
    pub fn forgotten(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        match pod.facts.take().filter(|_| pod.listed) {
            Some(facts) => {
                let Pod { wishes, mistakes, told, .. } = std::mem::take(pod);
                let facts = Some(facts);
                *pod = Pod { facts, wishes, mistakes, told, listed: true, ..Pod::new() };
            }
            None => drop(self.pods.remove(uid)),
        }
    }

    /// Whether the pod belongs to the mesh; `None` while nothing is known about it.
    #[must_use]
    pub fn wanted(&self, uid: &PodUid, settings: &Settings) -> Option<Enrollment> {
        let pod = self.pods.get(uid)?;
        let mut facts = pod.facts.clone()?;
        if facts.ips.is_empty() {
            facts.ips = pod.attachment.as_ref().map(|a| a.ips.clone()).unwrap_or_default();
        }
        let namespace = self.namespaces.get(&facts.name.namespace);
        Some(enrollment(&facts, &pod.wishes, namespace, settings))
    }

    /// The rules of the pod, if it is captured.
    #[must_use]
    pub fn options(&self, uid: &PodUid, settings: &Settings) -> Options {
        match self.pods.get(uid) {
            Some(Pod { facts: Some(facts), wishes, .. }) => {
                enrollment::options(facts, wishes, settings)
            }
            Some(Pod { wishes, .. }) => wishes.options(&settings.options),
            None => settings.options.clone(),
        }
    }

    /// All addresses of a pod that anybody has told.
    #[must_use]
    pub fn addresses(&self, uid: &PodUid) -> Vec<IpAddr> {
        let pod = self.pods.get(uid);
        let facts = pod.and_then(|pod| pod.facts.as_ref()).map(|facts| &facts.ips);
        let attachment = pod.and_then(|pod| pod.attachment.as_ref()).map(|told| &told.ips);
        facts.into_iter().chain(attachment).flatten().copied().collect()
    }

    /// Mistakes of a pod that belongs to the mesh, each once.
    pub fn untold(&mut self, uid: &PodUid, settings: &Settings) -> Vec<Mistake> {
        if !matches!(self.wanted(uid, settings), Some(Enrollment::Capture(_))) {
            return Vec::new();
        }
        let Some(pod) = self.pods.get_mut(uid) else {
            return Vec::new();
        };
        let told = std::mem::replace(&mut pod.told, pod.mistakes.clone());
        pod.mistakes.iter().filter(|mistake| !told.contains(mistake)).cloned().collect()
    }

    /// What is to be done about one pod now.
    #[must_use]
    pub fn plan(&self, uid: &PodUid, settings: &Settings, ack: &Ack) -> Action {
        let Some(pod) = self.pods.get(uid) else {
            return Action::Idle;
        };
        let wanted = self.wanted(uid, settings);
        // A pod without facts is in no list: that is a gap, not a wish.
        let wanted = wanted.unwrap_or(Enrollment::Skip(Reason::NamespaceUnknown));
        plan(pod, &wanted, &self.options(uid, settings), ack)
    }
}

#[cfg(test)]
mod tests;
