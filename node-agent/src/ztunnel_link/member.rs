//! A pod on the roster, and what a ztunnel is told about it.

use netns::PodNetns;
use zds::{Violation, WorkloadInfo};

use super::session::{Command, Reclaim, Takes};
use crate::facts::PodUid;
use crate::listeners::HeldListener;
use crate::pod_netns::same;

/// A pod that is to be served.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) info: WorkloadInfo,
    /// `None` for a pod of an earlier life of the agent that is not found any more.
    pub(super) netns: Option<PodNetns>,
    /// None while the newest ztunnel binds for itself, or has yet to give them back.
    pub(super) listeners: Vec<HeldListener>,
}

impl Member {
    /// `namespace/name`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }

    pub(super) fn is_in(&self, netns: &PodNetns) -> bool {
        self.netns.as_ref().is_some_and(|known| same(known.id(), netns.id()))
    }

    /// Closes our listeners for a ztunnel that binds its own. An older one may still
    /// accept from them, so they are made to share their ports first.
    pub(super) fn release(&mut self) {
        for held in self.listeners.drain(..) {
            if let Err(error) = netns::share_port(&held) {
                tracing::warn!(at = %held.at(), %error, "port is not free for the next ztunnel");
            }
        }
    }

    /// What a ztunnel is told.
    pub(super) fn command(&self, uid: &PodUid, takes: Takes) -> Result<Command, Violation> {
        match (&self.netns, takes) {
            (Some(netns), Takes::Netns) => Command::add(uid, self.info.clone(), netns.clone()),
            (Some(netns), Takes::Listeners) => {
                let (info, listeners) = (self.info.clone(), self.listeners.clone());
                Command::add_with(uid, info, netns.clone(), listeners)
            }
            (None, Takes::Netns) => Command::keep(uid, Reclaim::NotAsked),
            (None, Takes::Listeners) => Command::keep(uid, Reclaim::Asked),
        }
    }
}
