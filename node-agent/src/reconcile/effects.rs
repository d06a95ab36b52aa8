//! What actions do, one pod at a time. Thin: every step is a call to the room that owns
//! it, in the order the law asks for.

use capture::{Dns, Options};
use netns::PodNetns;
use zds::{ListenAt, Lookups, WorkloadInfo};

use super::memory::Memory;
use crate::facts::{PodFacts, PodUid};
use crate::install::Standing;
use crate::known_outside::KnownOutside;
use crate::kube::{KubeApi, KubeError};
use crate::observe::Observer;
use crate::pod_netns::{Finder, Located, Locator, NotFound, Sought, Store, StoreError};
use crate::rules::{HostProbes, Rules, RulesError};
use crate::ztunnel_link::{Ack, LinkError, Workload, ZtunnelLink};

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// No way leads to the pod's namespace.
    #[error(transparent)]
    NotFound(#[from] Box<NotFound>),
    /// The API does not show the pod (yet).
    #[error("the Kubernetes API does not show the pod")]
    NoFacts,
    /// ztunnel.
    #[error(transparent)]
    Ztunnel(#[from] LinkError),
    /// Rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The API.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The record on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener that was ended cannot be opened again.
    #[error("open listener {at} of the pod again: {source}")]
    Listener {
        /// Which one.
        at: ListenAt,
        /// The system's answer: somebody else may listen there.
        source: std::io::Error,
    },
    /// A capture failed, and the rules that it had made are still there.
    #[error("{0}; and the rules could not be taken back, which is tried again")]
    LeftBehind(#[source] Box<EffectError>),
    /// Whoever asked for it has hung up, or the agent stops.
    #[error("given up while it was under way: the runtime hung up, or the agent stops")]
    Abandoned,
}

/// The rooms that effects call.
#[derive(Debug)]
pub struct Effects {
    /// Rules in pods.
    pub rules: Rules,
    /// What the host does for probes.
    pub host: HostProbes,
    /// ztunnel.
    pub link: ZtunnelLink,
    /// What the kernel says about captured pods.
    pub observer: Observer,
    /// Checking namespaces.
    pub locator: Locator,
    /// Finding namespaces.
    pub finder: Finder,
    /// Whether the runtime calls the plugin, as its configuration shows.
    pub standing: Standing,
    /// What the plugin told.
    pub store: Store,
    /// What a life of the agent leaves to the next.
    pub memory: Memory,
    /// Pods that may start while no agent answers.
    pub known: KnownOutside,
    /// The API.
    pub api: KubeApi,
}

/// Whether a failed capture has left rules behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// It has not.
    Wholly,
    /// It has.
    Partly,
}

impl Effects {
    /// The namespace of a pod that is not held open. What was found out besides is written
    /// down, as if the plugin had told it.
    pub(super) async fn find(
        &self,
        uid: &PodUid,
        facts: Option<&PodFacts>,
    ) -> Result<Located, EffectError> {
        let (known, given) = (self.store.known(uid).await, self.link.netns(uid));
        let name = facts.map(|facts| &facts.name);
        let ips = facts.map(|facts| facts.ips.as_slice()).unwrap_or_default();
        let found = self.finder.find(Sought { uid, name, ips, known, given }).await;
        let found = found.map_err(Box::new)?;
        if let Some(record) = found.news.clone() {
            self.store.remember(record).await?;
        }
        Ok(found)
    }

    /// Listen, redirect, observe: also which policy rules of others come before ours. Leaves
    /// nothing behind when it fails.
    pub(super) async fn capture(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<Vec<String>, EffectError> {
        // From here on it starts nowhere without an agent.
        self.known.strike(&facts.uid).await;
        let outcome = async {
            // Also when ztunnel serves the pod already: that may be in an earlier sandbox.
            self.link.add(&facts.uid, workload(facts, options), netns.clone()).await?;
            self.apply_and_observe(&facts.uid, netns, options).await
        };
        match outcome.await {
            Ok(overtaken) => Ok(overtaken),
            Err(error) => match self.undo(&facts.uid, netns).await {
                Undone::Wholly => Err(error),
                Undone::Partly => Err(EffectError::LeftBehind(Box::new(error))),
            },
        }
    }

    /// Has ztunnel serve a pod as these rules will need it, which come after that.
    pub(super) async fn serve(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        let workload = workload(facts, options);
        if self.link.ack(&facts.uid) != Ack::Serving || self.joins(facts, &workload) {
            self.link.add(&facts.uid, workload, netns.clone()).await?;
        }
        Ok(())
    }

    /// Whether ztunnel still answers lookups that these rules do not lead to it: the name
    /// server goes after the redirect.
    pub(super) fn has_idle_name_server(&self, uid: &PodUid, options: &Options) -> bool {
        options.dns == Dns::Off && self.link.lookups(uid) == Some(Lookups::Redirected)
    }

    /// Enters a pod that is captured already, of an earlier life of the agent: ztunnel may
    /// have been restarted as well.
    pub(super) async fn enter(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        match self.link.add(&facts.uid, workload(facts, options), netns.clone()).await {
            // It is on the roster now: the next ztunnel finds it in its snapshot.
            Ok(()) | Err(LinkError::NoZtunnel) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether its name lookups were direct. The name server comes before the redirect.
    fn joins(&self, facts: &PodFacts, workload: &Workload) -> bool {
        workload.lookups == Lookups::Redirected
            && self.link.lookups(&facts.uid) != Some(Lookups::Redirected)
    }

    /// Takes back a capture, in reverse order. What cannot be taken back is logged: the
    /// caller has an error to report already.
    pub(super) async fn undo(&self, uid: &PodUid, netns: &PodNetns) -> Undone {
        let mut undone = Undone::Wholly;
        self.observer.forget(uid);
        // Connections that were redirected meanwhile would go on in clear text.
        if let Err(error) = self.rules.end_connections(netns).await {
            tracing::error!(%uid, %error, "cannot end the connections of a failed capture");
        }
        if let Err(error) = self.rules.remove(netns).await {
            tracing::error!(%uid, %error, "cannot undo the rules of a failed capture");
            undone = Undone::Partly;
        }
        if let Err(error) = self.link.del(uid).await {
            tracing::error!(%uid, %error, "cannot make ztunnel let go of a failed capture");
        }
        // What is left of the capture must not keep probes out.
        if undone == Undone::Wholly {
            self.host.release(uid);
        }
        undone
    }

    /// Has ztunnel serve a captured pod as it should.
    pub(super) async fn keep_served(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        let workload = workload(facts, options);
        if self.lacks_v6_lookups(&facts.uid, netns).await {
            self.link.renew_lookups(&facts.uid, workload.clone(), netns.clone()).await?;
        }
        let lacks = self.link.lacks_listeners(&facts.uid, netns, workload.lookups);
        if lacks || self.joins(facts, &workload) {
            self.link.add(&facts.uid, workload.clone(), netns.clone()).await?;
        }
        if self.has_idle_name_server(&facts.uid, options) {
            self.link.add(&facts.uid, workload, netns.clone()).await?;
        }
        Ok(())
    }

    /// The last step out, when ztunnel has let go: end what it has left while NAT stands, then
    /// nothing of ours stays.
    pub(super) async fn remove(&self, uid: &PodUid, netns: &PodNetns) -> Result<(), EffectError> {
        self.observer.forget(uid);
        self.rules.end_connections(netns).await?;
        self.rules.remove(netns).await?;
        self.host.release(uid);
        Ok(())
    }

    /// The pod ends. Its rules end with its namespace.
    pub(super) async fn forget(
        &self,
        uid: &PodUid,
        container_id: Option<&str>,
    ) -> Result<(), EffectError> {
        // Its sockets would keep the namespace alive.
        self.observer.forget(uid);
        self.host.release(uid);
        let stored = match container_id {
            Some(container_id) => self.store.forget(uid, container_id).await,
            None => Ok(()),
        };
        self.link.del(uid).await?;
        Ok(stored?)
    }
}

/// A pod with these rules, in ztunnel's words.
pub(super) fn workload(facts: &PodFacts, options: &Options) -> Workload {
    let info = WorkloadInfo {
        name: facts.name.name.clone(),
        namespace: facts.name.namespace.clone(),
        service_account: facts.service_account.clone(),
    };
    let lookups = match options.dns {
        Dns::On => Lookups::Redirected,
        Dns::Off => Lookups::Direct,
    };
    Workload { info, lookups }
}
