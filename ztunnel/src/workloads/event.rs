//! What the session hears and what it says: events, actions, and the pods in them.

use netns::NetnsId;
use zds::{GiveBack, WorkloadInfo};

use crate::proxy::{GivenListener, Listeners};

/// A pod that the agent wants served. `N` is the handle of its namespace, which the
/// session only passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod<N> {
    pub(super) uid: String,
    pub(super) info: WorkloadInfo,
    pub(super) id: NetnsId,
    pub(super) netns: N,
    pub(super) listeners: Listeners,
}

impl<N> Pod<N> {
    /// Whether serving this pod is what `other` asks for.
    pub(super) fn stands_for(&self, other: &Self) -> bool {
        let same_listeners = match &other.listeners {
            // Whichever we have.
            Listeners::ToBind(_) => true,
            given => *given == self.listeners,
        };
        self.id == other.id && same_listeners
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
    /// Answer with the listeners and the namespace of a running pod.
    GiveBack(String),
    /// Serve a running pod on these listeners too, and answer.
    Adopt(String, Vec<GivenListener>),
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
