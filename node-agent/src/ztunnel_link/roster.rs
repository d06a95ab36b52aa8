//! Which pods ztunnel is to serve, which ztunnels are connected, and what each of them
//! has said. All of it behind one short lock, so that a pod that is added while a ztunnel
//! connects is either in its snapshot or sent to it afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use netns::PodNetns;
use tokio::sync::{mpsc, oneshot, watch};
use zds::WorkloadInfo;

use super::session::{Command, Subject};
use super::{LinkError, Metrics};
use crate::facts::PodUid;

/// Names one connection of this process' life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(u64);

/// Something for a connection to send, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) reply: Option<oneshot::Sender<Result<(), String>>>,
}

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

/// A pod that is to be served.
#[derive(Clone, Debug)]
struct Member {
    info: WorkloadInfo,
    /// `None` for a pod of an earlier life of the agent that is not found any more.
    netns: Option<PodNetns>,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    orders: mpsc::Sender<Order>,
    acks: HashMap<PodUid, Result<(), String>>,
    live: bool,
}

/// The lock's contents.
#[derive(Debug)]
pub(super) struct Roster {
    members: BTreeMap<PodUid, Member>,
    /// Oldest first; the last one serves new pods.
    connections: Vec<Connection>,
    refused_unasked: BTreeSet<PodUid>,
    next_id: u64,
    changes: watch::Sender<u64>,
    metrics: Metrics,
}

impl Roster {
    pub(super) fn new(metrics: Metrics) -> Self {
        let (changes, _) = watch::channel(0);
        let (members, connections) = (BTreeMap::new(), Vec::new());
        Self {
            members,
            connections,
            refused_unasked: BTreeSet::new(),
            next_id: 0,
            changes,
            metrics,
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Enters a pod, and says to whom its add goes.
    pub(super) fn enter(
        &mut self,
        uid: &PodUid,
        info: WorkloadInfo,
        netns: PodNetns,
    ) -> Result<(mpsc::Sender<Order>, Command), LinkError> {
        let command = Command::add(uid, info.clone(), netns.clone())?;
        self.members.insert(uid.clone(), Member { info, netns: Some(netns) });
        let newest = self.connections.last_mut().ok_or(LinkError::NoZtunnel)?;
        newest.acks.remove(uid);
        Ok((newest.orders.clone(), command))
    }

    /// Enters a pod of the agent's earlier life, for the snapshots to come.
    pub(super) fn restore(&mut self, uid: &PodUid, info: WorkloadInfo, netns: Option<PodNetns>) {
        self.members.insert(uid.clone(), Member { info, netns });
    }

    /// Strikes a pod off, and says who has to be told.
    pub(super) fn strike(&mut self, uid: &PodUid) -> Vec<mpsc::Sender<Order>> {
        self.members.remove(uid);
        for connection in &mut self.connections {
            connection.acks.remove(uid);
        }
        self.connections.iter().map(|connection| connection.orders.clone()).collect()
    }

    /// A ztunnel has said hello: from now on it is the newest, and this is its snapshot.
    pub(super) fn admit(&mut self, orders: mpsc::Sender<Order>) -> (ConnectionId, Vec<Command>) {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let connection = Connection { id, orders, acks: HashMap::new(), live: false };
        self.connections.push(connection);
        self.metrics.connected(self.connections.len());
        (id, self.members.iter().filter_map(|(uid, member)| command(uid, member)).collect())
    }

    /// A ztunnel has answered.
    pub(super) fn answered(
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
                }
                Subject::Serve(_) | Subject::Drop(_) => {}
                Subject::Snapshot => connection.live = result.is_ok(),
            }
        }
        self.changes.send_modify(|version| *version += 1);
    }

    /// A ztunnel has refused a pod, and nobody waits for this answer.
    pub(super) fn refused_unasked(&mut self, uid: &PodUid) {
        self.refused_unasked.insert(uid.clone());
        self.changes.send_modify(|version| *version += 1);
    }

    /// A ztunnel is gone. The one that is the newest now has missed what the other got:
    /// it is told here.
    pub(super) fn dismiss(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
        self.metrics.connected(self.connections.len());
        if let Some(newest) = self.connections.last() {
            for (uid, member) in &self.members {
                let missed = !matches!(newest.acks.get(uid), Some(Ok(())));
                if let Some(command) = command(uid, member).filter(|c| missed && c.netns.is_some())
                {
                    // A full queue means that it does not read; its deadline ends it.
                    let _ = newest.orders.try_send(Order { command, reply: None });
                }
            }
        }
        self.changes.send_modify(|version| *version += 1);
    }

    /// What the newest ztunnel says about a pod.
    pub(super) fn ack(&self, uid: &PodUid) -> Ack {
        match self.connections.last().and_then(|newest| newest.acks.get(uid)) {
            Some(Ok(())) => Ack::Serving,
            Some(Err(error)) => Ack::Refused(error.clone()),
            None => Ack::Unknown,
        }
    }

    /// Pods that were refused while nobody waited for the answer, each told once. Whoever
    /// waits for a refusal has learned of it, and decides when to try again.
    pub(super) fn take_refused(&mut self) -> BTreeSet<PodUid> {
        std::mem::take(&mut self.refused_unasked)
    }

    /// Whether the newest ztunnel has the whole picture.
    pub(super) fn is_live(&self) -> bool {
        self.connections.last().is_some_and(|newest| newest.live)
    }
}

/// What a snapshot says about a pod. Its messages were checked when it was entered; a
/// restored one that does not fit a packet is reported by its own task.
fn command(uid: &PodUid, member: &Member) -> Option<Command> {
    match &member.netns {
        Some(netns) => Command::add(uid, member.info.clone(), netns.clone()).ok(),
        None => Command::keep(uid).ok(),
    }
}
