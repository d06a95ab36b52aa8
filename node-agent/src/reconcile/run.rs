//! The life of the reconciler: what it holds, how it starts, one task for each pod. The
//! tasks themselves are in `tend`, their actions in `act`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::effects::{Effects, workload};
use super::escaped::OnEscaped;
use super::evictions::Evictions;
use super::metrics::Metrics;
use super::plan::Action;
use super::pod::{Attachment, Outcome, Pod};
use super::slot::Slot;
use super::table::{Fact, Table};
use crate::enrollment::Settings;
use crate::facts::{PodFacts, PodUid};
use crate::known_outside::KnownOutside;
use crate::pod_netns::Record;

/// Pods worked on at once: more do not get faster on a small node.
const AT_ONCE: usize = 8;

/// How pods are brought in and out.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long peers are given to learn that a pod leaves the mesh.
    pub withdraw_wait: Duration,
    /// How long the connections of a leaving pod may take to end.
    pub drain_deadline: Duration,
    /// How often every captured pod is looked at, though nothing was heard of it.
    pub verify_interval: Duration,
    /// How often it is compared fully, though nothing was seen.
    pub compare_interval: Duration,
    /// What becomes of pods that started uncaptured.
    pub on_escaped: OnEscaped,
}

/// Keeps every pod of the node where it belongs.
#[derive(Clone, Debug)]
pub struct Reconciler {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    settings: Mutex<Arc<Settings>>,
    pub(super) effects: Effects,
    pub(super) pace: Pace,
    pub(super) metrics: Metrics,
    table: Mutex<Table>,
    slots: Mutex<Slots>,
    pub(super) evictions: Mutex<Evictions>,
    changed: watch::Sender<u64>,
    pub(super) limit: Semaphore,
    /// Comparing and repairing waits for nobody's answer but the kernel's, and must not wait
    /// behind what does.
    pub(super) repairs: Semaphore,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Tasks start once the pods of an earlier life of the agent were matched.
#[derive(Debug, Default)]
pub(super) struct Slots {
    started: bool,
    pub(super) pods: HashMap<PodUid, Arc<Slot>>,
}

impl Reconciler {
    /// Begins with an empty table.
    #[must_use]
    pub fn new(
        settings: Settings,
        pace: Pace,
        effects: Effects,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let (changed, _) = watch::channel(0);
        let table = Table::recalling(effects.memory.found().clone(), settings.label_keys());
        let inner = Inner {
            settings: Mutex::new(Arc::new(settings)),
            effects,
            pace,
            metrics,
            table: Mutex::new(table),
            slots: Mutex::default(),
            evictions: Mutex::default(),
            changed,
            limit: Semaphore::new(AT_ONCE),
            repairs: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes in what the watch has seen.
    pub fn observe(&self, fact: Fact) {
        let pods = self.change(|table| table.observe(fact));
        for uid in pods {
            self.tell_mistakes(&uid);
            self.wake(&uid);
        }
    }

    /// Matches what an earlier life of the agent knew with the first lists of the API and
    /// with what is in the pods. Returns when ztunnel can be given a full snapshot; from
    /// then on every pod is tended. `false`: the agent was stopped before.
    pub async fn start(&self) -> bool {
        for record in self.inner.effects.store.all().await {
            let Record { uid, container_id, ips, .. } = record;
            self.change(|table| table.restore(&uid, Attachment { container_id, ips }));
        }
        let mut changes = self.changes();
        let synced = async { drop(changes.wait_for(|_| self.table().synced()).await) };
        tokio::select! {
            () = self.inner.stop.cancelled() => return false,
            () = synced => {}
        }
        let known = |(uid, pod): (&PodUid, &Pod)| {
            // One whose record was lost, but that says it is captured, is in ztunnel as well.
            let said = pod.facts.as_ref().is_some_and(|facts| facts.annotations.redirection);
            (pod.attachment.is_some() || said).then(|| uid.clone())
        };
        let known: Vec<_> = self.table().pods().filter_map(known).collect();
        let looks = known.iter().map(|uid| self.look_first(uid));
        futures_util::future::join_all(looks).await;
        self.start_tasks();
        self.watch_ztunnel();
        tracing::info!(found_again = known.len(), "the pods of this node are known");
        !self.inner.stop.is_cancelled()
    }

    /// Waits until every task has ended; they do soon after `stop`.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The table, for a moment.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        // Changes of the table are single steps: a panic leaves none half done.
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the operator decided.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Probes come from these addresses from now on: every pod's rules follow.
    pub fn probe_from(&self, sources: &BTreeSet<IpAddr>) {
        let mut settings = Settings::clone(&self.settings());
        settings.options.probes.sources.clone_from(sources);
        *self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        let known: Vec<_> = self.table().pods().map(|(uid, _)| uid.clone()).collect();
        for uid in known {
            self.wake(&uid);
        }
    }

    /// The list of pods that may start while no agent answers.
    #[must_use]
    pub fn known_outside(&self) -> &KnownOutside {
        &self.inner.effects.known
    }

    /// Whether what the table says of pods and namespaces is what the API says now, as far as
    /// anybody can tell. Before the first lists it is not.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.table().synced() && self.inner.effects.api.is_watching()
    }

    /// Counts changes of the table.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table();
        let result = change(&mut table);
        self.inner.metrics.count(&table);
        drop(table);
        self.inner.changed.send_modify(|version| *version += 1);
        result
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod's turn, with a task behind it from [`Reconciler::start`] on.
    pub(super) fn slot(&self, uid: &PodUid) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.pods.get(uid) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        slots.pods.insert(uid.clone(), Arc::clone(&slot));
        if slots.started {
            self.spawn_task(uid, &slot);
        }
        slot
    }

    /// Whether `slot` still is the pod's turn; a task that ended has given it up.
    pub(super) fn is_current(&self, uid: &PodUid, slot: &Arc<Slot>) -> bool {
        self.slots().pods.get(uid).is_some_and(|current| Arc::ptr_eq(current, slot))
    }

    pub(super) fn wake(&self, uid: &PodUid) {
        self.slot(uid).wake.notify_one();
    }

    fn start_tasks(&self) {
        let known: Vec<_> = self.table().pods().map(|(uid, _)| uid.clone()).collect();
        for uid in &known {
            self.slot(uid);
        }
        let mut slots = self.slots();
        slots.started = true;
        for (uid, slot) in &slots.pods {
            self.spawn_task(uid, slot);
        }
    }

    fn spawn_task(&self, uid: &PodUid, slot: &Arc<Slot>) {
        let (this, uid, slot) = (self.clone(), uid.clone(), Arc::clone(slot));
        self.inner.tasks.spawn(async move { this.tend(&uid, &slot).await });
    }

    /// A pod that was refused in a snapshot is put right at once. What its own task has
    /// asked for and was refused is tried again with that task's growing pauses.
    fn watch_ztunnel(&self) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let mut changes = this.inner.effects.link.changes();
            loop {
                tokio::select! {
                    () = this.inner.stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                for uid in this.inner.effects.link.take_refused() {
                    this.wake(&uid);
                }
            }
        });
    }

    /// The first look at a pod of an earlier life. One whose namespace is not found now,
    /// but that tells its peers to use the tunnel, is not taken from ztunnel: it is most
    /// likely served, and is looked for again later.
    async fn look_first(&self, uid: &PodUid) {
        let slot = self.slot(uid);
        let mut held = slot.held.lock().await;
        let action = self.plan(uid);
        if action != Action::Look {
            return;
        }
        // The semaphore is never closed.
        let _turn = self.inner.limit.acquire().await;
        let Err(error) = self.act(uid, &mut held, &action).await else {
            return;
        };
        let facts = self.facts(uid);
        if let Some(facts) = facts.filter(|facts| facts.annotations.redirection) {
            tracing::warn!(pod = %facts.name, %uid, %error, "captured pod is not found again yet");
            let options = self.options(uid);
            self.let_probes_through(uid, &options).await;
            let workload = workload(&facts, &options);
            self.inner.effects.link.restore(uid, workload, None);
        }
    }

    pub(super) fn plan(&self, uid: &PodUid) -> Action {
        let ack = self.inner.effects.link.ack(uid);
        self.table().plan(uid, &self.settings(), &ack)
    }

    pub(super) fn options(&self, uid: &PodUid) -> capture::Options {
        self.table().options(uid, &self.settings())
    }

    pub(super) fn facts(&self, uid: &PodUid) -> Option<PodFacts> {
        self.table().get(uid).and_then(|pod| pod.facts.clone())
    }

    pub(super) fn becomes(&self, uid: &PodUid, outcome: Outcome) {
        self.change(|table| {
            if let Some(pod) = table.get_mut(uid) {
                pod.becomes(outcome);
            }
        });
    }
}
