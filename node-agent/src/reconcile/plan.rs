//! PURE. What to do about one pod, given everything that is believed about it. The order
//! law lives here: listen, redirect, advertise; withdraw, wait until peers can know,
//! un-redirect, drain, delete.

use capture::Options;

use super::pod::{Pod, State};
use crate::enrollment::{Enrollment, Reason};
use crate::facts::Annotations;
use crate::ztunnel_link::Ack;

/// The next step for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Idle,
    /// See what is in the pod: it was there before this process.
    Look,
    /// Have ztunnel serve it, redirect, observe. A failure is undone.
    Capture(Options),
    /// Compare it with what it should be and repair what differs.
    Verify(Options),
    /// Like [`Action::Capture`], but of a pod that must not fall back to clear text: a
    /// failure leaves in place what is there.
    Repair(Options),
    /// End connections that are older than the capture: their time is over.
    EndOlder(Options),
    /// Tell peers and people.
    Annotate(Annotations),
    /// Tell peers not to use the tunnel any more.
    Withdraw,
    /// Give peers time to learn it.
    AwaitPeers,
    /// Make new connections direct, keep old ones.
    Drain(Options),
    /// Give old connections time to end.
    AwaitDrained,
    /// End what is left, have ztunnel let go, remove everything.
    Remove,
    /// The pod ends: have ztunnel let go, keep nothing.
    Forget,
}

impl Action {
    /// Its name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Look => "look",
            Self::Capture(_) => "capture",
            Self::Verify(_) => "verify",
            Self::Repair(_) => "repair",
            Self::EndOlder(_) => "end_older",
            Self::Annotate(_) => "annotate",
            Self::Withdraw => "withdraw",
            Self::AwaitPeers => "await_peers",
            Self::Drain(_) => "drain",
            Self::AwaitDrained => "await_drained",
            Self::Remove => "remove",
            Self::Forget => "forget",
        }
    }
}

/// Decides the next step for one pod. `own` are the rules that it has if it is captured,
/// whether that is wanted or not.
#[must_use]
pub fn plan(pod: &Pod, wanted: &Enrollment, own: &Options, ack: &Ack) -> Action {
    if pod.ending {
        return Action::Forget;
    }
    if pod.attachment.is_none() {
        return unseen(pod, wanted);
    }
    if *wanted == Enrollment::Skip(Reason::Ended) && pod.state != State::Outside {
        return Action::Forget;
    }
    match (pod.state, wanted) {
        (State::Unknown, _) => Action::Look,
        (State::Outside, Enrollment::Capture(options)) => Action::Capture(options.clone()),
        (State::Outside, Enrollment::Skip(reason)) => outside(pod, reason),
        (State::Captured, Enrollment::Capture(options)) => captured(pod, options, ack),
        (State::Captured, Enrollment::Skip(reason)) => unwanted(pod, reason, own, ack),
        // Wanted again half-way out.
        (_, Enrollment::Capture(options)) => Action::Repair(options.clone()),
        (State::Withdrawn, _) => Action::AwaitPeers,
        (State::PeersKnow, _) => pod.applied.clone().map_or(Action::Remove, Action::Drain),
        (State::Draining, _) => Action::AwaitDrained,
        (State::Drained, _) => Action::Remove,
    }
}

/// Without a namespace there is nothing to act on: it is looked for. So is that of a pod
/// which says that it is captured and should not be.
fn unseen(pod: &Pod, wanted: &Enrollment) -> Action {
    let said = pod.facts.as_ref().is_some_and(|facts| facts.annotations.redirection);
    match wanted {
        Enrollment::Capture(_) => Action::Look,
        Enrollment::Skip(reason) if said && reason.releases() => Action::Look,
        Enrollment::Skip(_) => Action::Idle,
    }
}

/// A pod that is certainly not captured must not say that it is.
fn outside(pod: &Pod, reason: &Reason) -> Action {
    let said = pod.facts.as_ref().map(|facts| &facts.annotations);
    if reason.releases() && said.is_some_and(|said| *said != Annotations::default()) {
        return Action::Annotate(Annotations::default());
    }
    Action::Idle
}

fn captured(pod: &Pod, options: &Options, ack: &Ack) -> Action {
    match &pod.applied {
        Some(applied) if applied != options => return Action::Repair(options.clone()),
        Some(_) => {}
        // Found so after a restart, damaged or of other options. To close it, ztunnel is not
        // needed.
        None => return Action::Verify(options.clone()),
    }
    // Looking comes before telling: what is told was observed. And before what ztunnel has
    // to say: whether clear text may pass does not depend on it.
    if pod.due {
        return Action::Verify(options.clone());
    }
    if pod.older_due {
        return Action::EndOlder(options.clone());
    }
    if matches!(ack, Ack::Refused(_)) {
        return Action::Repair(options.clone());
    }
    match &pod.facts {
        Some(facts) if facts.annotations != pod.captured_annotations() => {
            Action::Annotate(pod.captured_annotations())
        }
        _ => Action::Idle,
    }
}

/// Captured, and something speaks against it. A pod that is being deleted is not led out
/// of the mesh first: its last words stay encrypted.
fn unwanted(pod: &Pod, reason: &Reason, own: &Options, ack: &Ack) -> Action {
    let terminating = pod.facts.as_ref().is_some_and(|facts| facts.terminating);
    let leaves = reason.releases() && !terminating;
    match &pod.applied {
        // To withdraw takes as long as the API is away, and the pod is captured meanwhile.
        Some(options) if leaves && pod.due => Action::Verify(options.clone()),
        _ if leaves => Action::Withdraw,
        // Found damaged or with other rules after a restart, it must not stay so either.
        applied => captured(pod, applied.as_ref().unwrap_or(own), ack),
    }
}

#[cfg(test)]
mod tests;
