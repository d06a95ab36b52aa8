//! The agent's end of ZDS: who listens for ztunnel, and hands it the pods.
//!
//! ```text
//! reconcile ── add, del ──► ZtunnelLink ──► roster ──► newest connection (add)
//!                                             │        all connections   (del)
//!            ztunnel connects ── hello ──► snapshot of the roster
//! ```
//!
//! A ztunnel that takes listeners gets those that the agent holds of a pod. To one that
//! does not, everything is as in version 1, and the agent holds none. The same goes for the
//! sockets of the pods' name servers, which ztunnels learned to take later.

mod member;
mod roster;
pub(crate) mod server;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use netns::PodNetns;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zds::{GiveBack, Lookups, Violation};

pub use member::Workload;
pub use roster::Ack;
pub use server::{Server, ServerError};
pub use session::{Action, Command, EndReason, Event, Session, Subject, Takes, Ticket};

use crate::facts::PodUid;
use crate::listeners::{HeldListener, OpenError, Opener, PodListeners};
use roster::{Order, Roster};

/// How long an order may wait for its answer, including its turn behind others. Each
/// single answer has a shorter deadline of its own.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
/// How long sockets that ztunnel has agreed to close may stay open.
const CLOSING: Duration = Duration::from_secs(2);

/// Why ztunnel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody to ask.
    #[error("no ztunnel is connected to the node agent: is it running on this node?")]
    NoZtunnel,
    /// It went away before it answered.
    #[error("ztunnel disconnected before it answered")]
    Lost,
    /// It takes too long.
    #[error("ztunnel did not answer within {ORDER_PATIENCE:?}")]
    TimedOut,
    /// It answered with an error of its own.
    #[error("ztunnel refused the pod: {0}")]
    Refused(String),
    /// Its listeners could not be opened.
    #[error(transparent)]
    Listeners(#[from] OpenError),
    /// The pod's names do not fit a packet.
    #[error("tell ztunnel about the pod: {0}")]
    Unsendable(#[from] Violation),
}

/// The room's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    ztunnel_connected: Gauge,
    untold: Family<PodLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabel {
    pod: String,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "ztunnels connected to the node agent";
        registry.register("ztunnel_connected", help, self.ztunnel_connected.clone());
        let help = "times that a ztunnel could not be told about a pod, which it then does not \
                    serve, because the pod's names do not fit a message";
        registry.register("sluice_agent_pods_untold", help, self.untold.clone());
    }

    fn untold(&self, pod: String) {
        self.untold.get_or_create(&PodLabel { pod }).inc();
    }

    /// The pod is gone, and so is its counter.
    fn forget(&self, pod: String) {
        self.untold.remove(&PodLabel { pod });
    }

    fn connected(&self, count: usize) {
        self.ztunnel_connected.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Tells ztunnel which pods to serve. Clones share the connections.
#[derive(Clone, Debug)]
pub struct ZtunnelLink {
    roster: Arc<Mutex<Roster>>,
    opener: Opener,
}

impl ZtunnelLink {
    /// Knows no pod and no ztunnel.
    #[must_use]
    pub fn new(metrics: Metrics, opener: Opener) -> Self {
        Self { roster: Arc::new(Mutex::new(Roster::new(metrics))), opener }
    }

    /// Has a pod served; returns once its listeners are there. The pod stays on the
    /// roster after a failure, so that the next snapshot names it: whoever gives up says
    /// [`ZtunnelLink::del`].
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub async fn add(
        &self,
        uid: &PodUid,
        workload: Workload,
        netns: PodNetns,
    ) -> Result<(), LinkError> {
        let lacking = self.lock().lacking(uid, &netns, workload.lookups);
        let opened = self.open(uid, &netns, lacking).await?;
        let (connection, command) = self.lock().enter(uid, workload, netns, opened)?;
        order(&connection, command).await
    }

    /// Enters a pod that was captured before this process started; ztunnel learns of it
    /// in the next snapshot.
    pub fn restore(&self, uid: &PodUid, workload: Workload, netns: Option<PodNetns>) {
        self.lock().restore(uid, workload, netns);
    }

    /// Has every connected ztunnel stop serving a pod. A ztunnel that goes away meanwhile
    /// serves nobody: that is no error.
    ///
    /// # Errors
    /// [`LinkError::Refused`], [`LinkError::TimedOut`], [`LinkError::Unsendable`].
    pub async fn del(&self, uid: &PodUid) -> Result<(), LinkError> {
        let connections = self.lock().strike(uid);
        let command = Command::del(uid)?;
        // All at once: one that is slow or refuses does not keep the others serving.
        let told = connections.iter().map(|connection| order(connection, command.clone()));
        let mut results = join_all(told).await.into_iter();
        let failed =
            |result: &Result<(), LinkError>| !matches!(result, Ok(()) | Err(LinkError::Lost));
        results.find(failed).unwrap_or(Ok(()))
    }

    /// Closes the sockets of a pod's name server everywhere and opens others, of the families
    /// that the pod has now: ztunnel takes them as a whole.
    ///
    /// # Errors
    /// Any [`LinkError`]; lookups are then direct as far as ztunnel knows.
    pub async fn renew_lookups(
        &self,
        uid: &PodUid,
        workload: Workload,
        netns: PodNetns,
    ) -> Result<(), LinkError> {
        let closed = Workload { lookups: Lookups::Direct, ..workload.clone() };
        self.add(uid, closed, netns.clone()).await?;
        let lookups = self.open_when_free(&netns).await?;
        let opened = PodListeners { lookups, ..PodListeners::default() };
        let (connection, command) = self.lock().enter(uid, workload, netns, opened)?;
        order(&connection, command).await
    }

    /// ztunnel has answered that it closes its ends, and may not have done it yet.
    async fn open_when_free(&self, netns: &PodNetns) -> Result<Vec<HeldListener>, OpenError> {
        let end = Instant::now() + CLOSING;
        loop {
            match self.opener.open_lookups(netns).await {
                Err(OpenError::Taken(_)) if Instant::now() < end => {}
                opened => return opened,
            }
            tokio::time::sleep(CLOSING / 40).await;
        }
    }

    /// Without any, ztunnel is asked to open them: an older one that binds for itself may
    /// have the ports and share them with its like.
    async fn open(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        lacking: GiveBack,
    ) -> Result<PodListeners, OpenError> {
        let or_none = |opened| match opened {
            Err(error @ OpenError::Taken(_)) => {
                tracing::info!(%uid, %error, "ztunnel opens the pod's listeners");
                Ok(Vec::new())
            }
            opened => opened,
        };
        let mut listeners = PodListeners::default();
        if matches!(lacking, GiveBack::Proxy | GiveBack::All) {
            listeners.proxy = or_none(self.opener.open(netns).await)?;
        }
        if matches!(lacking, GiveBack::Lookups | GiveBack::All) {
            listeners.lookups = or_none(self.opener.open_lookups(netns).await)?;
        }
        Ok(listeners)
    }

    /// Where a pod is, if it was entered with its namespace or a ztunnel gave it back.
    #[must_use]
    pub fn netns(&self, uid: &PodUid) -> Option<PodNetns> {
        self.lock().netns(uid)
    }

    /// Whether we should hold a pod's listeners and do not: somebody else had a port when
    /// they were to be opened, or a ztunnel has not given them back.
    #[must_use]
    pub fn lacks_listeners(&self, uid: &PodUid, netns: &PodNetns, lookups: Lookups) -> bool {
        self.lock().lacking(uid, netns, lookups) != GiveBack::NotAsked
    }

    /// The listeners that we hold of a pod.
    #[must_use]
    pub fn listeners(&self, uid: &PodUid) -> Vec<HeldListener> {
        self.lock().listeners(uid)
    }

    /// What ztunnels were last told about a pod's lookups; `None` of a pod that was not
    /// entered.
    #[must_use]
    pub fn lookups(&self, uid: &PodUid) -> Option<Lookups> {
        self.lock().lookups(uid)
    }

    /// The listeners that we hold and no ztunnel serves.
    #[must_use]
    pub fn unserved(&self) -> BTreeMap<PodUid, Vec<HeldListener>> {
        self.lock().unserved()
    }

    /// What the newest ztunnel says about a pod.
    #[must_use]
    pub fn ack(&self, uid: &PodUid) -> Ack {
        self.lock().ack(uid)
    }

    /// Whether a ztunnel is connected and has the whole picture.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.lock().is_live()
    }

    /// Pods that a ztunnel has refused since the last call, in a snapshot or after another
    /// one has gone: refusals that no caller of [`ZtunnelLink::add`] was told.
    #[must_use]
    pub fn take_refused(&self) -> BTreeSet<PodUid> {
        self.lock().take_refused()
    }

    /// Counts answers, connections, and pods that came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.lock().changes()
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        // Nothing under this lock can panic half-way through a change.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn order(connection: &mpsc::Sender<Order>, command: Command) -> Result<(), LinkError> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        let order = Order { command, reply };
        connection.send(order).await.map_err(|_| LinkError::Lost)?;
        answer.await.map_err(|_| LinkError::Lost)?.map_err(LinkError::Refused)
    };
    tokio::time::timeout(ORDER_PATIENCE, exchange).await.unwrap_or(Err(LinkError::TimedOut))
}

#[cfg(test)]
mod tests;
