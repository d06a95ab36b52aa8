//! Which pods ztunnel is to serve, which ztunnels are connected, and what each of them
//! has said. All of it behind one short lock, so that a pod that is added while a ztunnel
//! connects is either in its snapshot or sent to it afterwards.

mod answers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use netns::PodNetns;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use zds::{GiveBack, GivenListener, Lookups, Violation};

use super::member::{Member, Workload};
use super::session::{Command, Takes};
use super::{LinkError, Metrics};
use crate::facts::PodUid;
use crate::listeners::{HeldListener, PodListeners};

pub use answers::Ack;

/// Names one connection of this process' life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(u64);

/// Something for a connection to send, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// How a connection is reached.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) orders: mpsc::Sender<Order>,
    /// It has become the newest again, and has missed what the other one got: it asks for
    /// [`Roster::missed`]. A call, not a queue: of any number of pods, none gets lost.
    pub(super) behind: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    takes: Takes,
    line: Line,
    /// Its last answer about each pod.
    acks: HashMap<PodUid, Result<(), String>>,
    /// Pods whose connections it accepts, whatever it has refused of them since: what is
    /// refused of a pod that is served leaves it as it was.
    serves: HashSet<PodUid>,
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

    /// Which listeners should be opened for a pod before it is entered.
    pub(super) fn lacking(&self, uid: &PodUid, netns: &PodNetns, lookups: Lookups) -> GiveBack {
        let wanted = self.newest_takes().map_or(GiveBack::NotAsked, Takes::may_give_back);
        let known = self.members.get(uid).filter(|member| member.is_in(netns));
        let nothing = PodListeners::default();
        known.map_or(&nothing, |member| &member.listeners).lacking(wanted, lookups)
    }

    /// What ztunnels were last told about a pod's lookups.
    pub(super) fn lookups(&self, uid: &PodUid) -> Option<Lookups> {
        self.members.get(uid).map(|member| member.workload.lookups)
    }

    /// Enters a pod, with listeners if some were opened, and says to whom its add goes.
    pub(super) fn enter(
        &mut self,
        uid: &PodUid,
        workload: Workload,
        netns: PodNetns,
        opened: PodListeners,
    ) -> Result<(mpsc::Sender<Order>, Command), LinkError> {
        let known = self.members.remove(uid).filter(|member| member.is_in(&netns));
        if known.is_none() {
            for connection in &mut self.connections {
                connection.serves.remove(uid);
            }
        }
        let mut listeners = known.map(|member| member.listeners).unwrap_or_default();
        if listeners.proxy.is_empty() {
            listeners.proxy = opened.proxy;
        }
        if workload.lookups == Lookups::Direct {
            // ztunnel closes them too: the port is the application's again.
            listeners.lookups.clear();
        } else if listeners.lookups.is_empty() {
            listeners.lookups = opened.lookups;
        }
        let mut member = Member { workload, netns: Some(netns), listeners };
        let takes = self.newest_takes();
        if let Some(takes) = takes {
            member.release_unless(takes);
        }
        let command = member.command(uid, takes.unwrap_or(Takes::Netns));
        self.members.insert(uid.clone(), member);
        self.changed();
        let newest = self.connections.last_mut().ok_or(LinkError::NoZtunnel)?;
        newest.acks.remove(uid);
        Ok((newest.line.orders.clone(), command?))
    }

    /// Enters a pod of the agent's earlier life, for the snapshots to come.
    pub(super) fn restore(&mut self, uid: &PodUid, workload: Workload, netns: Option<PodNetns>) {
        let listeners = PodListeners::default();
        self.members.insert(uid.clone(), Member { workload, netns, listeners });
    }

    /// Strikes a pod off, and says who has to be told.
    pub(super) fn strike(&mut self, uid: &PodUid) -> Vec<mpsc::Sender<Order>> {
        if let Some(member) = self.members.remove(uid) {
            self.metrics.forget(member.name());
        }
        for connection in &mut self.connections {
            connection.acks.remove(uid);
            connection.serves.remove(uid);
        }
        self.changed();
        self.connections.iter().map(|connection| connection.line.orders.clone()).collect()
    }

    /// A ztunnel has said hello: from now on it is the newest, and this is its snapshot.
    pub(super) fn admit(&mut self, line: Line, takes: Takes) -> (ConnectionId, Vec<Command>) {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let (acks, serves) = (HashMap::new(), HashSet::new());
        let connection = Connection { id, takes, line, acks, serves, live: false };
        self.connections.push(connection);
        self.metrics.connected(self.connections.len());
        self.release_unless(takes);
        let (mut snapshot, mut unsendable) = (Vec::new(), Vec::new());
        for (uid, member) in &self.members {
            match member.command(uid, takes) {
                Ok(command) => snapshot.push(command),
                Err(error) => unsendable.push((uid.clone(), error)),
            }
        }
        unsendable.into_iter().for_each(|(uid, error)| self.untold(uid, error));
        self.changed();
        (id, snapshot)
    }

    /// The newest ztunnel cannot be told about a pod, so it will not serve it: as if it had
    /// refused.
    fn untold(&mut self, uid: PodUid, error: Violation) {
        let Some(member) = self.members.get(&uid) else { return };
        let pod = member.name();
        let error = LinkError::Unsendable(error).to_string();
        tracing::error!(%pod, %uid, %error, "ztunnel does not serve a pod");
        self.metrics.untold(pod);
        if let Some(newest) = self.connections.last_mut() {
            newest.acks.insert(uid.clone(), Err(error));
        }
        self.refused_unasked.insert(uid);
    }

    /// What a ztunnel has given back: the agent was restarted, or ztunnel had to bind the
    /// ports itself.
    pub(super) fn regain(
        &mut self,
        uid: &PodUid,
        netns: Option<PodNetns>,
        listeners: Vec<GivenListener>,
    ) {
        let Some(takes) = self.newest_takes() else { return };
        let Some(member) = self.members.get_mut(uid) else { return };
        member.netns = member.netns.take().or(netns);
        match member.regain(listeners, takes) {
            Ok(taken) => tracing::debug!(%uid, listeners = taken, "listeners are back"),
            Err(error) => tracing::warn!(%uid, %error, "listeners are not taken back"),
        }
    }

    /// Where a pod is, as far as ztunnel or whoever entered it has told.
    pub(super) fn netns(&self, uid: &PodUid) -> Option<PodNetns> {
        self.members.get(uid).and_then(|member| member.netns.clone())
    }

    /// What the agent holds of a pod.
    pub(super) fn listeners(&self, uid: &PodUid) -> Vec<HeldListener> {
        let held = |member: &Member| member.listeners.all().cloned().collect();
        self.members.get(uid).map(held).unwrap_or_default()
    }

    fn newest_takes(&self) -> Option<Takes> {
        self.connections.last().map(|newest| newest.takes)
    }

    /// A ztunnel that binds for itself needs the ports.
    fn release_unless(&mut self, takes: Takes) {
        self.members.values_mut().for_each(|member| member.release_unless(takes));
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// A ztunnel is gone. The one that is the newest now has missed what the other got:
    /// it is called to ask for it.
    pub(super) fn dismiss(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
        self.metrics.connected(self.connections.len());
        if let Some(takes) = self.newest_takes() {
            self.release_unless(takes);
        }
        if let Some(newest) = self.connections.last() {
            newest.line.behind.notify_one();
        }
        self.changed();
    }

    /// What a ztunnel that has become the newest again has to be told. Nothing for one that
    /// is not: the pods are another one's.
    pub(super) fn missed(&mut self, id: ConnectionId) -> Vec<Command> {
        let (mut missed, mut unsendable) = (Vec::new(), Vec::new());
        let Some(newest) = self.connections.last().filter(|newest| newest.id == id) else {
            return missed;
        };
        for (uid, member) in &self.members {
            let serves = matches!(newest.acks.get(uid), Some(Ok(())));
            // One in between that binds for itself had us close them.
            let reclaims = member.lacking(newest.takes) != GiveBack::NotAsked;
            if serves && !reclaims || member.netns.is_none() {
                continue;
            }
            match member.command(uid, newest.takes) {
                Ok(command) => missed.push(command),
                Err(error) => unsendable.push((uid.clone(), error)),
            }
        }
        unsendable.into_iter().for_each(|(uid, error)| self.untold(uid, error));
        missed
    }
}
