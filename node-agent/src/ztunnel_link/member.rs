//! A pod on the roster, and what a ztunnel is told about it.

use netns::PodNetns;
use zds::{GiveBack, GivenListener, Lookups, Violation, WorkloadInfo};

use super::session::{Command, Takes};
use crate::facts::PodUid;
use crate::listeners::{HeldListener, PodListeners, ReturnError};
use crate::pod_netns::same;

/// What a ztunnel is told about a pod, besides where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Who it is.
    pub info: WorkloadInfo,
    /// What becomes of its name lookups.
    pub lookups: Lookups,
}

/// A pod that is to be served.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) workload: Workload,
    /// `None` for a pod of an earlier life of the agent that is not found any more.
    pub(super) netns: Option<PodNetns>,
    /// None while the newest ztunnel binds for itself, or has yet to give them back.
    pub(super) listeners: PodListeners,
}

impl Member {
    /// `namespace/name`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.workload.info.namespace, self.workload.info.name)
    }

    pub(super) fn is_in(&self, netns: &PodNetns) -> bool {
        self.netns.as_ref().is_some_and(|known| same(known.id(), netns.id()))
    }

    /// What we should hold of it and do not, with a newest ztunnel like this.
    pub(super) fn lacking(&self, takes: Takes) -> GiveBack {
        self.listeners.lacking(takes.may_give_back(), self.workload.lookups)
    }

    /// Closes those listeners of ours that the newest ztunnel binds for itself. An older
    /// one may still accept from them, so those of the proxy are made to share their ports
    /// first. A name server's are not shared: its ports are free when the older one has
    /// ended.
    pub(super) fn release_unless(&mut self, takes: Takes) {
        if takes < Takes::Lookups {
            self.listeners.lookups.clear();
        }
        if takes >= Takes::Listeners {
            return;
        }
        for held in self.listeners.proxy.drain(..) {
            if let Err(error) = netns::share_port(&held) {
                tracing::warn!(at = %held.at(), %error, "port is not free for the next ztunnel");
            }
        }
    }

    /// Takes over what a ztunnel has given back of what is lacking, all of it or nothing.
    pub(super) fn regain(
        &mut self,
        given: Vec<GivenListener>,
        takes: Takes,
    ) -> Result<usize, ReturnError> {
        let (lacking, Some(netns)) = (self.lacking(takes), &self.netns) else { return Ok(0) };
        let wanted = given.into_iter().filter(|given| lacking.takes(given.at));
        let taken = wanted.map(|given| HeldListener::returned(given, netns));
        let taken = taken.collect::<Result<Vec<_>, _>>()?;
        let count = taken.len();
        let (lookups, proxy): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|held| held.at().is_for_lookups());
        self.listeners.proxy.extend(proxy);
        self.listeners.lookups.extend(lookups);
        Ok(count)
    }

    /// What a ztunnel is told.
    pub(super) fn command(&self, uid: &PodUid, takes: Takes) -> Result<Command, Violation> {
        let lacking = self.lacking(takes);
        let Some(netns) = &self.netns else { return Command::keep(uid, lacking) };
        let Workload { info, lookups } = self.workload.clone();
        let lookups = if takes == Takes::Lookups { lookups } else { Lookups::Unspecified };
        let workload = Workload { info, lookups };
        let listeners = match takes {
            Takes::Netns => Vec::new(),
            Takes::Listeners => self.listeners.proxy.clone(),
            Takes::Lookups => self.listeners.all().cloned().collect(),
        };
        Command::add(uid, workload, netns.clone(), listeners, lacking)
    }
}
