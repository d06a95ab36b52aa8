//! What connected ztunnels have said about pods, and who goes unserved for it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::session::Subject;
use super::{ConnectionId, Roster};
use crate::facts::PodUid;
use crate::listeners::HeldListener;

/// What the newest ztunnel says about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Its listeners are there.
    Serving,
    /// It tried and failed.
    Refused(String),
    /// It has not said anything, or there is no ztunnel.
    Unknown,
}

impl Roster {
    /// Listeners from which no ztunnel accepts. One that has just connected is given the
    /// time to say so.
    pub(in crate::ztunnel_link) fn unserved(&self) -> BTreeMap<PodUid, Vec<HeldListener>> {
        let silent = |uid| self.connections.last().is_some_and(|c| !c.acks.contains_key(uid));
        let served = |uid| self.connections.iter().any(|c| c.serves.contains(uid));
        let unserved = self.members.iter().filter(|&(uid, _)| !served(uid) && !silent(uid));
        unserved
            .map(|(uid, member)| (uid.clone(), member.listeners.all().cloned().collect()))
            .filter(|(_, held): &(_, Vec<_>)| !held.is_empty())
            .collect()
    }

    /// A ztunnel has answered.
    pub(in crate::ztunnel_link) fn answered(
        &mut self,
        id: ConnectionId,
        subject: &Subject,
        result: &Result<(), String>,
    ) {
        let members = &self.members;
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
            match subject {
                // A pod that left meanwhile is not noted again.
                Subject::Serve(uid) if members.contains_key(uid) => {
                    connection.acks.insert(uid.clone(), result.clone());
                    if result.is_ok() {
                        connection.serves.insert(uid.clone());
                    }
                }
                Subject::Serve(_) | Subject::Drop(_) => {}
                Subject::Snapshot => connection.live = result.is_ok(),
            }
        }
        self.changed();
    }

    /// A ztunnel has refused a pod, and nobody waits for this answer.
    pub(in crate::ztunnel_link) fn refused_unasked(&mut self, uid: &PodUid) {
        self.refused_unasked.insert(uid.clone());
        self.changes.send_modify(|version| *version += 1);
    }

    /// What the newest ztunnel says about a pod.
    pub(in crate::ztunnel_link) fn ack(&self, uid: &PodUid) -> Ack {
        match self.connections.last().and_then(|newest| newest.acks.get(uid)) {
            Some(Ok(())) => Ack::Serving,
            Some(Err(error)) => Ack::Refused(error.clone()),
            None => Ack::Unknown,
        }
    }

    /// Pods that were refused while nobody waited for the answer, each told once. Whoever
    /// waits for a refusal has learned of it, and decides when to try again.
    pub(in crate::ztunnel_link) fn take_refused(&mut self) -> BTreeSet<PodUid> {
        std::mem::take(&mut self.refused_unasked)
    }

    /// Whether the newest ztunnel has the whole picture.
    pub(in crate::ztunnel_link) fn is_live(&self) -> bool {
        self.connections.last().is_some_and(|newest| newest.live)
    }
}
