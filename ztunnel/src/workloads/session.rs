//! The rules of a ZDS session on ztunnel's side: pure.
//!
//! ```text
//!                    Connected                    SnapshotSent
//!  Disconnected ───────────────► Snapshot{seen} ────────────────► Live
//!       ▲                             │        unseen pods stop     │
//!       └──────────── Disconnected, violation (nack first) ◄────────┘
//!
//!  one pod:   Add            Started(Ok)
//!     (none) ─────► starting ───────────► running ──Del, unseen──► (none)
//!                    │    ▲                  │ Add with another netns:
//!        Started(Err)▼    │Tick              └ stop, then start anew
//!                    pending ──Del, unseen──► (none)
//! ```
//!
//! Running pods know nothing of the connection: they go on while it is away. A violation
//! of the protocol ends the connection and not the process, because the next connection
//! begins with a full snapshot anyway.
//!
//! Listeners come with an add, or are bound here and given back to an agent that asks: it
//! was restarted and has none. A running pod that is given others is served on both. A name
//! server comes and goes with what the agent says about the pod's lookups.

use std::collections::{BTreeMap, BTreeSet};

use zds::{GiveBack, WorkloadInfo};

use super::event::{Action, Event, Pod, PodState, Request};
use super::progress::{Answer, Pending, Running, Starting, Then};

/// See the module's diagram.
#[derive(Debug)]
pub(super) struct Session<N> {
    phase: Phase,
    running: BTreeMap<String, Running>,
    starting: BTreeMap<String, Starting<N>>,
    pending: BTreeMap<String, Pending<N>>,
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    Snapshot { seen: BTreeSet<String> },
    Live,
}

impl<N: Clone> Session<N> {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Disconnected,
            running: BTreeMap::new(),
            starting: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// The one transition function.
    pub(super) fn on(&mut self, event: Event<N>) -> Vec<Action<N>> {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected => self.disconnected(),
            Event::Malformed(text) => self.violation(text),
            Event::Started(uid, result) => self.started(uid, result),
            Event::Tick => self.retry(),
            Event::Request(_) if matches!(self.phase, Phase::Disconnected) => Vec::new(),
            Event::Request(request) => match request {
                Request::Add(pod, give_back) => self.add(pod, give_back),
                Request::BadAdd(uid, reason) => {
                    self.see(&uid);
                    vec![Action::Ack(Err(reason))]
                }
                Request::Keep(uid, give_back) => self.keep(uid, give_back),
                Request::Del(uid) => self.del(&uid),
                Request::SnapshotSent => self.snapshot_sent(),
            },
        }
    }

    /// A request waits for its answer, and the next one must not be read yet: answers
    /// correlate by order only.
    pub(super) fn owes_ack(&self) -> bool {
        self.starting.values().any(|starting| starting.answer != Answer::NotOwed)
    }

    /// The snapshot of the current connection is complete.
    pub(super) fn live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// What keeps this node from being ready. A pod that cannot be started does not: it
    /// is that pod's trouble, and the next ztunnel could never replace one that still
    /// holds the pod's ports.
    pub(super) fn waiting(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Disconnected => Some("a connection to the node agent"),
            Phase::Snapshot { .. } => Some("the node agent's snapshot"),
            Phase::Live => None,
        }
    }

    /// Pods that failed to start and are not given up.
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len() + self.retried().count()
    }

    /// Pods on their next attempt that are still wanted.
    fn retried(&self) -> impl Iterator<Item = &Starting<N>> {
        let wanted = |s: &&Starting<N>| s.reason.is_some() && !matches!(s.then, Then::Stop);
        self.starting.values().filter(wanted)
    }

    /// Every pod with its state.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&str, &WorkloadInfo, PodState)> {
        let running = self.running.iter().map(|(uid, r)| (uid.as_str(), &r.info, PodState::Up));
        let starting = self.starting.iter().map(|(uid, starting)| {
            (uid.as_str(), &starting.pod.info, PodState::Pending(starting.reason.clone()))
        });
        let pending = self.pending.iter().map(|(uid, pending)| {
            (uid.as_str(), &pending.pod.info, PodState::Pending(Some(pending.reason.clone())))
        });
        running.chain(starting).chain(pending)
    }

    fn connected(&mut self) -> Vec<Action<N>> {
        self.phase = Phase::Snapshot { seen: BTreeSet::new() };
        self.pending.clear();
        Vec::new()
    }

    fn disconnected(&mut self) -> Vec<Action<N>> {
        self.phase = Phase::Disconnected;
        for starting in self.starting.values_mut() {
            starting.answer = Answer::NotOwed;
        }
        Vec::new()
    }

    fn violation(&mut self, text: String) -> Vec<Action<N>> {
        self.disconnected();
        vec![Action::Ack(Err(text)), Action::Close]
    }

    fn see(&mut self, uid: &str) {
        if let Phase::Snapshot { seen } = &mut self.phase {
            seen.insert(uid.to_owned());
        }
    }

    fn add(&mut self, pod: Pod<N>, give_back: GiveBack) -> Vec<Action<N>> {
        self.see(&pod.uid);
        if let Some(starting) = self.starting.get_mut(&pod.uid) {
            starting.answer = Answer::Owed(give_back);
            let same = starting.pod.stands_for(&pod);
            starting.then = if same { Then::Run } else { Then::Replace(pod) };
            return Vec::new();
        }
        match self.running.get(&pod.uid) {
            Some(running) if running.id == pod.id && pod.is_as_before() => {
                vec![acknowledge(pod.uid, give_back)]
            }
            Some(running) if running.id == pod.id => vec![Action::Adopt(pod, give_back)],
            Some(_) => {
                self.running.remove(&pod.uid);
                vec![Action::Stop(pod.uid.clone()), self.start(pod, Answer::Owed(give_back), None)]
            }
            None => {
                self.pending.remove(&pod.uid);
                vec![self.start(pod, Answer::Owed(give_back), None)]
            }
        }
    }

    fn start(&mut self, pod: Pod<N>, answer: Answer, reason: Option<String>) -> Action<N> {
        let starting = Starting { pod: pod.clone(), answer, then: Then::Run, reason };
        self.starting.insert(pod.uid.clone(), starting);
        Action::Start(pod)
    }

    /// A pod that we do not serve cannot be kept: the agent must know, because it has to
    /// find the namespace and add it.
    fn keep(&mut self, uid: String, give_back: GiveBack) -> Vec<Action<N>> {
        if !matches!(self.phase, Phase::Snapshot { .. }) {
            return self.violation(format!("keep of workload {uid} after the snapshot"));
        }
        self.see(&uid);
        if let Some(starting) = self.starting.get_mut(&uid) {
            starting.answer = Answer::Owed(give_back);
            if matches!(starting.then, Then::Stop) {
                starting.then = Then::Run;
            }
            return Vec::new();
        }
        if self.running.contains_key(&uid) {
            return vec![acknowledge(uid, give_back)];
        }
        let unknown = format!("workload {uid} is not served here and keep brings no namespace");
        vec![Action::Ack(Err(unknown))]
    }

    fn del(&mut self, uid: &str) -> Vec<Action<N>> {
        self.pending.remove(uid);
        if let Phase::Snapshot { seen } = &mut self.phase {
            // What runs falls when the snapshot is complete.
            seen.remove(uid);
            return vec![Action::Ack(Ok(()))];
        }
        if let Some(starting) = self.starting.get_mut(uid) {
            starting.then = Then::Stop;
        }
        let stop = self.running.remove(uid).map(|_| Action::Stop(uid.to_owned()));
        stop.into_iter().chain([Action::Ack(Ok(()))]).collect()
    }

    fn snapshot_sent(&mut self) -> Vec<Action<N>> {
        let Phase::Snapshot { seen } = &self.phase else {
            return self.violation("second snapshot on one connection".to_owned());
        };
        let gone: Vec<_> =
            self.running.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
        self.pending.retain(|uid, _| seen.contains(uid));
        for (uid, starting) in &mut self.starting {
            if !seen.contains(uid) {
                starting.then = Then::Stop;
            }
        }
        self.running.retain(|uid, _| seen.contains(uid));
        self.phase = Phase::Live;
        gone.into_iter().map(Action::Stop).chain([Action::Ack(Ok(()))]).collect()
    }

    fn started(&mut self, uid: String, result: Result<(), String>) -> Vec<Action<N>> {
        let Some(Starting { pod, answer, then, reason }) = self.starting.remove(&uid) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        match (then, result) {
            (Then::Run, result) => {
                match &result {
                    Ok(()) => {
                        self.running.insert(uid.clone(), Running { info: pod.info, id: pod.id });
                    }
                    Err(reason) => {
                        self.pending.insert(uid.clone(), Pending { pod, reason: reason.clone() });
                    }
                }
                if let Answer::Owed(give_back) = answer {
                    actions.push(match result {
                        Ok(()) => acknowledge(uid, give_back),
                        Err(reason) => Action::Ack(Err(reason)),
                    });
                }
            }
            (Then::Stop, Ok(())) => actions.push(Action::Stop(uid)),
            (Then::Stop, Err(_)) => {}
            (Then::Replace(next), result) => {
                if result.is_ok() {
                    actions.push(Action::Stop(uid));
                }
                actions.push(self.start(next, answer, reason));
            }
        }
        actions
    }

    fn retry(&mut self) -> Vec<Action<N>> {
        std::mem::take(&mut self.pending)
            .into_values()
            .map(|pending| self.start(pending.pod, Answer::NotOwed, Some(pending.reason)))
            .collect()
    }
}

/// The answer about a pod that is served.
fn acknowledge<N>(uid: String, give_back: GiveBack) -> Action<N> {
    match give_back {
        GiveBack::NotAsked => Action::Ack(Ok(())),
        asked => Action::GiveBack(uid, asked),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
