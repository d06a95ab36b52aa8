//! What the session hears and what it says: events, actions, and the pods in them.

use netns::NetnsId;
use zds::{GiveBack, WorkloadInfo};

use crate::proxy::{Listeners, NameServer};

/// A pod that the agent wants served. `N` is the handle of its namespace, which the
/// session only passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod<N> {
    pub(super) uid: String,
    pub(super) info: WorkloadInfo,
    pub(super) id: NetnsId,
    pub(super) netns: N,
    pub(super) listeners: Listeners,
    pub(super) name_server: NameServer,
}

impl<N> Pod<N> {
    /// Whether serving this pod is what `other` asks for.
    pub(super) fn stands_for(&self, other: &Self) -> bool {
        let same_listeners = match &other.listeners {
            // Whichever we have.
            Listeners::ToBind(_) => true,
            given => *given == self.listeners,
        };
        let same_name_server = match (&other.name_server, &self.name_server) {
            (NameServer::AsConfigured, _) => true,
            // Whichever we have.
            (NameServer::On(given), NameServer::On(_)) if given.is_empty() => true,
            (wanted, ours) => wanted == ours,
        };
        self.id == other.id && same_listeners && same_name_server
    }

    /// Whether a pod that is served need not be changed for this.
    pub(super) fn is_as_before(&self) -> bool {
        matches!(
            (&self.listeners, &self.name_server),
            (Listeners::ToBind(_), NameServer::AsConfigured)
        )
    }
}

/// One request of the agent.
#[derive(Debug)]
pub(super) enum Request<N> {
    Add(Pod<N>, GiveBack),
    /// An add whose descriptors are unusable; says why.
    BadAdd(String, String),
    Keep(String, GiveBack),
    Del(String),
    SnapshotSent,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event<N> {
    Connected,
    Disconnected,
    Request(Request<N>),
    /// A packet that is no request; says why.
    Malformed(String),
    /// A [`Action::Start`] ended.
    Started(String, Result<(), String>),
    /// Time to try pending pods again.
    Tick,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<N> {
    /// Answer the request in flight.
    Ack(Result<(), String>),
    /// Answer with these listeners and the namespace of a running pod.
    GiveBack(String, GiveBack),
    /// Serve a running pod as this one, on its listeners too, and answer with these.
    Adopt(Pod<N>, GiveBack),
    /// Serve a pod; report by [`Event::Started`].
    Start(Pod<N>),
    /// Stop serving a pod at once: it is gone.
    Stop(String),
    /// End the connection and make a new one.
    Close,
}

/// How a pod is served, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Its listeners accept.
    Up,
    /// It is being started or could not be; the reason of the last failure.
    Pending(Option<String>),
}
