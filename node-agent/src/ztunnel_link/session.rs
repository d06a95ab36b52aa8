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
    AddWorkload, DelWorkload, GiveBack, Hello, KeepWorkload, Returned, SnapshotSent, Violation,
    WorkloadRequest, workload_request::Payload,
};

use super::Workload;
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

/// What a ztunnel can be handed, and gives back when it is asked; each more than the one
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takes {
    /// A pod's namespace, as in version 1: it binds the pod's ports itself.
    Netns,
    /// The listeners of the proxy too.
    Listeners,
    /// The sockets of the name server too, where the pod's lookups are redirected.
    Lookups,
}

impl Takes {
    fn of(hello: &Hello) -> Self {
        match (hello.takes_listeners(), hello.takes_lookups()) {
            (false, _) => Self::Netns,
            (true, false) => Self::Listeners,
            (true, true) => Self::Lookups,
        }
    }

    /// What it can be asked for.
    pub(super) fn may_give_back(self) -> GiveBack {
        match self {
            Self::Netns => GiveBack::NotAsked,
            Self::Listeners => GiveBack::Proxy,
            Self::Lookups => GiveBack::All,
        }
    }
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
    pub asks: GiveBack,
}

impl Command {
    /// Serve a pod in its namespace, on these listeners. What is `lacking`, ztunnel opens
    /// and gives to us, or gives back.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn add(
        uid: &PodUid,
        workload: Workload,
        netns: PodNetns,
        listeners: Vec<HeldListener>,
        lacking: GiveBack,
    ) -> Result<Self, Violation> {
        let add = AddWorkload {
            uid: uid.0.clone(),
            workload_info: Some(workload.info),
            listeners: listeners.iter().map(|held| held.at().entry()).collect(),
            lookups: workload.lookups.into(),
        };
        let command = Self::new(Subject::Serve(uid.clone()), Payload::Add(add), lacking)?;
        Ok(Self { netns: Some(netns), listeners, ..command })
    }

    /// The pod exists, its namespace is not at hand.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn keep(uid: &PodUid, lacking: GiveBack) -> Result<Self, Violation> {
        let keep = KeepWorkload { uid: uid.0.clone() };
        Self::new(Subject::Serve(uid.clone()), Payload::Keep(keep), lacking)
    }

    /// Stop serving a pod.
    ///
    /// # Errors
    /// [`Violation::TooLong`].
    pub fn del(uid: &PodUid) -> Result<Self, Violation> {
        let del = DelWorkload { uid: uid.0.clone() };
        Self::new(Subject::Drop(uid.clone()), Payload::Del(del), GiveBack::NotAsked)
    }

    fn snapshot_sent() -> Self {
        Self::new(Subject::Snapshot, Payload::SnapshotSent(SnapshotSent {}), GiveBack::NotAsked)
            .expect("an empty message fits a packet")
    }

    fn new(subject: Subject, payload: Payload, asks: GiveBack) -> Result<Self, Violation> {
        let features = asks.features();
        let bytes = zds::encode(&WorkloadRequest { features, payload: Some(payload) })?;
        Ok(Self { subject, bytes, netns: None, listeners: Vec::new(), asks })
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
    /// What another ztunnel was told meanwhile, and nobody waits for.
    Missed(Vec<Command>),
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
    in_flight: Option<(Option<Ticket>, Subject, GiveBack)>,
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
            Event::Missed(commands) => {
                self.waiting.extend(commands.into_iter().map(|command| (None, command)));
            }
        }
        actions.extend(self.next());
        (self, actions)
    }

    fn packet(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Action, EndReason> {
        if self.phase == Phase::AwaitHello {
            let hello = zds::decode_hello(bytes, &fds)?;
            return Ok(Action::TakeSnapshot(Takes::of(&hello)));
        }
        let Some((ticket, subject, asks)) = self.in_flight.take() else {
            return Err(EndReason::Unsolicited(bytes.len()));
        };
        let answer = zds::decode_response(bytes, fds)?;
        if let Ok(returned) = &answer {
            let unasked = returned.listeners.iter().filter(|given| !asks.takes(given.at)).count();
            if unasked > 0 || (asks == GiveBack::NotAsked && returned.netns.is_some()) {
                return Err(EndReason::Unasked(unasked));
            }
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
        self.in_flight = Some((ticket, command.subject.clone(), command.asks));
        Some(Action::Send(command))
    }
}

#[cfg(test)]
mod tests;
