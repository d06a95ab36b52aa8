//! ADD: lets one pod in, or leaves nothing behind.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netns::PodNetns;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::aging::Opened;
use super::effects::EffectError;
use super::plan::Action;
use super::pod::{Attachment, State};
use super::run::Reconciler;
use super::table::{Entered, Fact};
use crate::enrollment::{Enrollment, Reason};
use crate::facts::{PodFacts, PodName, PodUid};
use crate::kube::KubeError;
use crate::pod_netns::{LocateError, Record, StoreError, StoredId};

/// How long the watch may lag behind the runtime before the API is asked directly.
const WATCH_LAG: Duration = Duration::from_secs(1);

/// Whoever has it may act on the pod.
type Turn = OwnedMutexGuard<Option<PodNetns>>;

/// A pod's sandbox, as ADD tells about it.
#[derive(Debug)]
pub struct Attach {
    /// Where the pod stands in the API.
    pub name: PodName,
    /// Its UID, if the runtime tells.
    pub uid: Option<PodUid>,
    /// The sandbox.
    pub container_id: String,
    /// The interface.
    pub ifname: String,
    /// The network that it belongs to.
    pub network: Option<String>,
    /// Where the namespace can be opened later.
    pub path: Option<PathBuf>,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// The namespace.
    pub netns: PodNetns,
}

/// What came of ADD.
#[derive(Debug, PartialEq, Eq)]
pub enum Attached {
    /// The pod is captured.
    Captured,
    /// It does not belong to the mesh.
    NotInMesh(Reason),
}

/// Why ADD failed; nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The descriptor is not the pod's namespace.
    #[error("the descriptor from the runtime is not the pod's network namespace: {0}")]
    NotThePods(#[source] LocateError),
    /// The pod cannot be looked up.
    #[error("look up pod {pod}: {source}")]
    Lookup {
        /// Which pod.
        pod: PodName,
        /// Why not.
        source: KubeError,
    },
    /// The API shows no such pod.
    #[error("the Kubernetes API shows no pod {0} with the UID that the runtime names")]
    NoSuchPod(PodName),
    /// The decision cannot be made, or must not be made, now.
    #[error("pod {pod} cannot be let in yet: {reason}")]
    NotNow {
        /// Which pod.
        pod: PodName,
        /// Why not.
        reason: Reason,
    },
    /// A step failed.
    #[error("capture pod {pod}: {source}")]
    Effect {
        /// Which pod.
        pod: PodName,
        /// Which step, and why.
        source: EffectError,
    },
}

impl Reconciler {
    /// ADD. `abandoned` says that nobody waits for the answer any more: what was begun is
    /// then taken back.
    ///
    /// # Errors
    /// Any [`AttachError`]; nothing is left behind, but of a sandbox that was captured before:
    /// it stays so until its DEL.
    pub async fn attach(
        &self,
        attach: Attach,
        abandoned: &CancellationToken,
    ) -> Result<Attached, AttachError> {
        self.evictions().called(&attach.name.namespace, Instant::now());
        let locator = &self.inner.effects.locator;
        locator.check(&attach.netns, &attach.ips).await.map_err(AttachError::NotThePods)?;
        let facts = self.look_up(&attach).await?;
        self.look_up_namespace(&facts).await?;
        let uid = facts.uid.clone();
        let (container_id, ips) = (attach.container_id.clone(), attach.ips.clone());
        let attachment = Attachment { container_id, ips };

        let turn = self.turn(&uid, &facts, attachment).await;
        let mut held = turn.ok_or(AttachError::NoSuchPod(attach.name.clone()))?;
        let result = self.let_in(&facts, &attach, &mut held, abandoned).await;
        // What was captured before stays so, and its DEL must find it.
        if result.is_err() && self.state(&uid) != State::Captured {
            *held = None;
            self.detach(&uid, &attach.container_id).await;
        }
        drop(held);
        self.wake(&uid);
        result
    }

    /// Enters the sandbox in the table and waits for the pod's turn. Meanwhile the end of
    /// an earlier sandbox of the same pod may be carried out, which strikes the pod off
    /// and may end its task: then it is entered again. `None` for a pod that is gone.
    async fn turn(&self, uid: &PodUid, facts: &PodFacts, attachment: Attachment) -> Option<Turn> {
        let enter = || {
            let entered = self.change(|table| table.attach(uid, facts.clone(), attachment.clone()));
            (entered == Entered::Known).then_some(())
        };
        loop {
            enter()?;
            let slot = self.slot(uid);
            let turn = Arc::clone(&slot.held).lock_owned().await;
            enter()?;
            if self.is_current(uid, &slot) {
                return Some(turn);
            }
        }
    }

    async fn let_in(
        &self,
        facts: &PodFacts,
        attach: &Attach,
        held: &mut Option<PodNetns>,
        abandoned: &CancellationToken,
    ) -> Result<Attached, AttachError> {
        let pod = || facts.name.clone();
        let failed = |source| AttachError::Effect { pod: pod(), source };
        self.remember(facts, attach).await.map_err(|error| failed(error.into()))?;
        let wanted = self.table().wanted(&facts.uid, &self.settings());
        let wanted = wanted.unwrap_or(Enrollment::Skip(Reason::NamespaceUnknown));
        let options = match wanted {
            Enrollment::Capture(options) => options,
            Enrollment::Skip(reason) if may_start_outside(&reason) => {
                self.let_go_of_earlier(&facts.uid, held).await.map_err(failed)?;
                return Ok(Attached::NotInMesh(reason));
            }
            Enrollment::Skip(reason) => return Err(AttachError::NotNow { pod: pod(), reason }),
        };
        // The semaphore is never closed.
        let turn = self.closed_while(&facts.uid, held, self.inner.limit.acquire()).await;
        let outcome = if self.state(&facts.uid) == State::Captured {
            // Asked again: what is in place stays in place.
            self.replace(facts, held, attach.netns.clone(), &options).await
        } else {
            self.capture(facts, held, attach.netns.clone(), &options, abandoned).await
        };
        drop(turn);
        if let Err(error) = &outcome {
            self.failed(&facts.uid, &Action::Capture(options.clone()), error);
        }
        outcome.map(|()| Attached::Captured).map_err(failed)
    }

    async fn capture(
        &self,
        facts: &PodFacts,
        held: &mut Option<PodNetns>,
        netns: PodNetns,
        options: &capture::Options,
        abandoned: &CancellationToken,
    ) -> Result<(), EffectError> {
        let effects = &self.inner.effects;
        self.let_probes_through(&facts.uid, options).await;
        let overtaken = effects.capture(facts, &netns, options).await?;
        if abandoned.is_cancelled() || self.inner.stop.is_cancelled() {
            effects.undo(&facts.uid, &netns).await;
            return Err(EffectError::Abandoned);
        }
        self.captured(facts, held, netns, options);
        self.overtaken(facts, Some(overtaken));
        self.age(&facts.uid, Opened::Nothing);
        Ok(())
    }

    /// A new sandbox of the same pod stays outside, its last one was captured.
    async fn let_go_of_earlier(
        &self,
        uid: &PodUid,
        held: &mut Option<PodNetns>,
    ) -> Result<(), EffectError> {
        let outside = self.table().get(uid).is_some_and(|pod| pod.state == State::Outside);
        if outside && held.take().is_some() {
            self.inner.effects.observer.forget(uid);
            self.inner.effects.host.release(uid);
            self.inner.effects.link.del(uid).await?;
        }
        Ok(())
    }

    /// Writes down where the pod is. A further interface of the same sandbox adds its
    /// addresses only: the sandbox ends with its first interface.
    async fn remember(&self, facts: &PodFacts, attach: &Attach) -> Result<(), StoreError> {
        let effects = &self.inner.effects;
        let record = Record {
            uid: facts.uid.clone(),
            name: facts.name.clone(),
            container_id: attach.container_id.clone(),
            ifname: attach.ifname.clone(),
            network: attach.network.clone(),
            path: attach.path.clone(),
            netns: StoredId::new(attach.netns.id(), effects.locator.boot()),
            ips: attach.ips.clone(),
        };
        let record = match effects.store.get(&facts.uid).await {
            Some(known) if known.is_same_sandbox(&record) => known.joined(record.ips),
            _ => record,
        };
        effects.store.remember(record).await
    }

    pub(super) async fn detach(&self, uid: &PodUid, container_id: &str) {
        if let Err(error) = self.inner.effects.store.forget(uid, container_id).await {
            tracing::warn!(%uid, %error, "record of a pod that was not let in stays");
        }
        self.inner.effects.host.release(uid);
        self.change(|table| table.forgotten(uid));
    }

    /// What the watch shows, or soon shows; else what the API answers.
    async fn look_up(&self, attach: &Attach) -> Result<PodFacts, AttachError> {
        if let Some(uid) = &attach.uid {
            let mut changes = self.changes();
            let seen = async { drop(changes.wait_for(|_| self.facts(uid).is_some()).await) };
            // Without a first list the watch cannot tell anything soon.
            let lag = if self.table().synced() { WATCH_LAG } else { Duration::ZERO };
            // What counts is what the table has afterwards.
            let _ = tokio::time::timeout(lag, seen).await;
            if let Some(facts) = self.facts(uid) {
                return Ok(facts);
            }
        }
        // A name alone may be that of an earlier pod in the table: only the API knows.
        let pod = attach.name.clone();
        let found = self.inner.effects.api.pod(&pod).await;
        let found = found.map_err(|source| AttachError::Lookup { pod: pod.clone(), source })?;
        let same = |facts: &PodFacts| attach.uid.as_ref().is_none_or(|uid| *uid == facts.uid);
        found.filter(same).ok_or(AttachError::NoSuchPod(pod))
    }

    async fn look_up_namespace(&self, facts: &PodFacts) -> Result<(), AttachError> {
        let name = &facts.name.namespace;
        if self.table().namespace(name).is_some() {
            return Ok(());
        }
        let found = self.inner.effects.api.namespace(name).await;
        let pod = facts.name.clone();
        let found = found.map_err(|source| AttachError::Lookup { pod, source })?;
        if let Some(namespace) = found {
            self.observe(Fact::Namespace(namespace));
        }
        Ok(())
    }
}

/// Whether a pod may start outside the mesh for this reason. A gap in what is known must
/// not let a pod out that belongs in.
pub(super) fn may_start_outside(reason: &Reason) -> bool {
    match reason {
        Reason::NotLabelled
        | Reason::NotSelected
        | Reason::OptedOut
        | Reason::HostNetwork
        | Reason::Sidecar => true,
        Reason::ExcludedNamespace | Reason::Ended | Reason::BadLabel { .. } => true,
        Reason::Terminating | Reason::NoAddress | Reason::NamespaceUnknown => false,
    }
}
