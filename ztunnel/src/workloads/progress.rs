//! How far one pod is, between its add and its end.

use netns::NetnsId;
use zds::{GiveBack, WorkloadInfo};

use super::event::Pod;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) info: WorkloadInfo,
    pub(super) id: NetnsId,
}

#[derive(Debug)]
pub(super) struct Pending<N> {
    pub(super) pod: Pod<N>,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) struct Starting<N> {
    pub(super) pod: Pod<N>,
    /// The agent waits for the outcome.
    pub(super) answer: Answer,
    /// What to do once it has started.
    pub(super) then: Then<N>,
    /// Why it failed before.
    pub(super) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Owed(GiveBack),
    NotOwed,
}

#[derive(Debug)]
pub(super) enum Then<N> {
    Run,
    Stop,
    Replace(Pod<N>),
}
