//! PURE. One ZDS session, from the agent's side.
//!
//! ```text
//! AwaitHello ── hello ──► Snapshot ── snapshot_sent acked ──► Live
//!     │                      │                                 │
//!     └── anything else ─────┴── a packet nobody asked for ────┴──► End
//! ```
//!
//! One request is in flight at a time; answers correlate by order only. Deadlines are
//! the shell's: [`Session::awaits`] says whether the peer owes something.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use netns::PodNetns;
use zds::{
    AddWorkload, DelWorkload, FEATURE_LISTENERS, KeepWorkload, Returned, SnapshotSent, Violation,
    WorkloadInfo, WorkloadRequest, workload_request::Payload,
};

use crate::facts::PodUid;
use crate::listeners::HeldListener;

/// What one request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Serve this pod, or go on serving it.
    Serve(PodUid),
    /// Stop serving this pod.
    Drop(PodUid),
    /// The snapshot is complete.
    Snapshot,
}

/// What a ztunnel can be handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A pod's namespace, as in version 1: it binds the pod's ports itself.
    Netns,
    /// Listeners too, and it gives them back when it is asked.
    Listeners,
}

/// Whether an answer may bring listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// It was asked for them.
    Asked,
    /// It was not.
    NotAsked,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it is about.
    pub subject: Subject,
    /// The packet.
    pub bytes: Vec<u8>,
    /// The namespace that goes with it.
    pub netns: Option<PodNetns>,
    /// The listeners that go with it.
    pub listeners: Vec<HeldListener>,
    /// What its answer may bring.
    pub reclaim: Reclaim,
}

impl Command {
    /// Serve a pod in its namespace.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn add(uid: &PodUid, info: WorkloadInfo, netns: PodNetns) -> Result<Self, Violation> {
        let command = Self::serve(uid, info, &[], Reclaim::NotAsked)?;
        Ok(Self { netns: Some(netns), ..command })
    }

    /// Serve a pod on these listeners; without any, ztunnel opens some and gives them to
    /// us.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn add_with(
        uid: &PodUid,
        info: WorkloadInfo,
        netns: PodNetns,
        listeners: Vec<HeldListener>,
    ) -> Result<Self, Violation> {
        let reclaim = if listeners.is_empty() { Reclaim::Asked } else { Reclaim::NotAsked };
        let command = Self::serve(uid, info, &listeners, reclaim)?;
        Ok(Self { netns: Some(netns), listeners, ..command })
    }

    fn serve(
        uid: &PodUid,
        info: WorkloadInfo,
        listeners: &[HeldListener],
        reclaim: Reclaim,
    ) -> Result<Self, Violation> {
        let listeners = listeners.iter().map(|held| held.at().entry()).collect();
        let add = AddWorkload { uid: uid.0.clone(), workload_info: Some(info), listeners };
        Self::new(Subject::Serve(uid.clone()), Payload::Add(add), reclaim)
    }

    /// The pod exists, its namespace is not at hand.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn keep(uid: &PodUid, reclaim: Reclaim) -> Result<Self, Violation> {
        let keep = KeepWorkload { uid: uid.0.clone() };
        Self::new(Subject::Serve(uid.clone()), Payload::Keep(keep), reclaim)
    }

    /// Stop serving a pod.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn del(uid: &PodUid) -> Result<Self, Violation> {
        let del = DelWorkload { uid: uid.0.clone() };
        Self::new(Subject::Drop(uid.clone()), Payload::Del(del), Reclaim::NotAsked)
    }

    fn snapshot_sent() -> Self {
        Self::new(Subject::Snapshot, Payload::SnapshotSent(SnapshotSent {}), Reclaim::NotAsked)
            .expect("an empty message fits a packet")
    }

    fn new(subject: Subject, payload: Payload, reclaim: Reclaim) -> Result<Self, Violation> {
        let features = match reclaim {
            Reclaim::Asked => FEATURE_LISTENERS,
            Reclaim::NotAsked => 0,
        };
        let bytes = zds::encode(&WorkloadRequest { features, payload: Some(payload) })?;
        Ok(Self { subject, bytes, netns: None, listeners: Vec::new(), reclaim })
    }
}

/// Which order a request came from, so that the answer finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// ztunnel sent a packet.
    Packet(Vec<u8>, Vec<OwnedFd>),
    /// The pods to serve at this moment, as asked for by [`Action::TakeSnapshot`].
    Snapshot(Vec<Command>),
    /// Something is to be sent.
    Order(Ticket, Command),
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Answer with [`Event::Snapshot`].
    TakeSnapshot(Takes),
    /// Send this packet.
    Send(Command),
    /// ztunnel answered, and may have given something back; `Err` is its own refusal.
    Answered(Option<Ticket>, Subject, Result<Returned, String>),
    /// Close the connection.
    End(EndReason),
}

/// How ztunnel broke the protocol.
#[derive(Debug, thiserror::Error)]
pub enum EndReason {
    /// A malformed packet.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A packet although nothing was asked.
    #[error("ztunnel sent {0} bytes that nobody asked for")]
    Unsolicited(usize),
    /// Descriptors although nobody asked for them.
    #[error("ztunnel gave {0} listeners back that nobody asked for")]
    Unasked(usize),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    AwaitHello,
    Snapshot,
    Live,
}

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    waiting: VecDeque<(Option<Ticket>, Command)>,
    in_flight: Option<(Option<Ticket>, Subject, Reclaim)>,
}

impl Default for Session {
    fn default() -> Self {
        Self { phase: Phase::AwaitHello, waiting: VecDeque::new(), in_flight: None }
    }
}

impl Session {
    /// Whether ztunnel owes a packet: the hello or an answer.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.phase == Phase::AwaitHello || self.in_flight.is_some()
    }

    /// Whether ztunnel has the whole picture.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Takes one event in.
    #[must_use]
    pub fn on(mut self, event: Event) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        match event {
            Event::Packet(bytes, fds) => match self.packet(&bytes, fds) {
                Ok(action) => actions.push(action),
                Err(reason) => return (self, vec![Action::End(reason)]),
            },
            Event::Snapshot(pods) => {
                let pods = pods.into_iter().chain([Command::snapshot_sent()]);
                // Orders that came in between wait behind the snapshot.
                let late = std::mem::take(&mut self.waiting);
                self.waiting = pods.map(|command| (None, command)).chain(late).collect();
                self.phase = Phase::Snapshot;
            }
            Event::Order(ticket, command) => self.waiting.push_back((Some(ticket), command)),
        }
        actions.extend(self.next());
        (self, actions)
    }

    fn packet(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Action, EndReason> {
        if self.phase == Phase::AwaitHello {
            let hello = zds::decode_hello(bytes, &fds)?;
            let takes = if hello.takes_listeners() { Takes::Listeners } else { Takes::Netns };
            return Ok(Action::TakeSnapshot(takes));
        }
        let Some((ticket, subject, reclaim)) = self.in_flight.take() else {
            return Err(EndReason::Unsolicited(bytes.len()));
        };
        let answer = zds::decode_response(bytes, fds)?;
        if let Ok(returned) = &answer
            && reclaim == Reclaim::NotAsked
            && !returned.is_empty()
        {
            return Err(EndReason::Unasked(returned.listeners.len()));
        }
        if subject == Subject::Snapshot && answer.is_ok() {
            self.phase = Phase::Live;
        }
        Ok(Action::Answered(ticket, subject, answer))
    }

    fn next(&mut self) -> Option<Action> {
        if self.phase == Phase::AwaitHello || self.in_flight.is_some() {
            return None;
        }
        let (ticket, command) = self.waiting.pop_front()?;
        self.in_flight = Some((ticket, command.subject.clone(), command.reclaim));
        Some(Action::Send(command))
    }
}

#[cfg(test)]
mod tests;
