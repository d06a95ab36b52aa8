//! One captured pod: its listeners, its connections, its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mesh::Identity;
use netns::PodNetns;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::accept_loop;
use super::context::ProxyContext;
use super::dial::Dialer;
use super::limits::{Full, Handshakes, Places};
use super::listen::bind;
use super::outbound::PeerError;
use super::roster::{self, Roster};
use super::{ProxyError, inbound, inbound_plain, outbound};
use crate::hbone::Pool;
use crate::identity::Lease;
use crate::worker::Worker;

/// How many connections that outlive a drain are named in the log.
const NAMED_SURVIVORS: usize = 20;

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The pod's UID.
    pub uid: String,
    /// Its names.
    pub info: zds::WorkloadInfo,
    /// Where its listeners and sockets live.
    pub netns: PodNetns,
}

/// What becomes of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They may finish until this time is over.
    Graceful(Duration),
    /// They are reset.
    Immediate,
}

/// Open connections of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Toward the pod.
    pub inbound: usize,
    /// Away from the pod.
    pub outbound: usize,
}

/// The proxy of one pod. Dropped, it ends at once, as by [`Drain::Immediate`].
#[derive(Debug)]
pub struct PodProxy {
    shared: Arc<PodShared>,
    life: Life,
}

impl PodProxy {
    /// Binds the pod's ports and begins to serve. Cancel-safe: dropped half-way, nothing
    /// is left.
    ///
    /// # Errors
    /// [`ProxyError`], naming the pod and, where it is about one, the port.
    pub async fn start(context: &Arc<ProxyContext>, pod: Pod) -> Result<Self, ProxyError> {
        let name = format!("{}/{}", pod.info.namespace, pod.info.name);
        let identity = Identity::new(
            &context.settings.trust_domain,
            &pod.info.namespace,
            &pod.info.service_account,
        )
        .map_err(|source| ProxyError::Identity { pod: name.clone(), source })?;
        let listeners = bind(context, &pod.netns).await.map_err(|error| error.of(&name))?;
        let home = context.workers.least_busy().clone();
        let listeners = adopt(&home, listeners).map_err(|(port, source)| ProxyError::Listen {
            pod: name.clone(),
            port,
            source,
        })?;
        let shared = Arc::new(PodShared::new(context, &identity, pod.info, pod.netns));
        tracing::info!(pod = %name, uid = %pod.uid, %identity, "pod is served");
        let proxy = Self { shared, life: Life::default() };
        proxy.serve(&home, listeners);
        Ok(proxy)
    }

    fn serve(&self, home: &Worker, [outgoing, plain, tunnels]: [TcpListener; 3]) {
        let (life, pod) = (&self.life, &self.shared);
        let shared = Arc::clone(pod);
        let serve = move |arrival| outbound::serve(Arc::clone(&shared), arrival);
        life.spawn(home, accept_loop(outgoing, Arc::clone(pod), life.clone(), home.clone(), serve));
        let shared = Arc::clone(pod);
        let serve = move |arrival| inbound_plain::serve(Arc::clone(&shared), arrival);
        life.spawn(home, accept_loop(plain, Arc::clone(pod), life.clone(), home.clone(), serve));
        let (shared, own) = (Arc::clone(pod), life.clone());
        let serve = move |arrival| inbound::serve(Arc::clone(&shared), own.clone(), arrival);
        life.spawn(home, accept_loop(tunnels, Arc::clone(pod), life.clone(), home.clone(), serve));
        life.spawn_watcher(home, roster::watch(Arc::clone(pod)));
    }

    /// Accepts no more, tells peers so, and ends what is open.
    pub async fn stop(self, drain: Drain) {
        self.life.tasks.close();
        if let Drain::Graceful(deadline) = drain {
            self.life.closing.cancel();
            if timeout(deadline, self.life.tasks.wait()).await.is_err() {
                self.shared.report_survivors(deadline);
            }
        }
        self.life.cut.cancel();
        self.life.tasks.wait().await;
        self.life.watchers.close();
        self.life.watchers.wait().await;
        for pool in self.shared.pools.iter().filter_map(OnceLock::get) {
            pool.close().await;
        }
    }

    /// What is open right now.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections { inbound: self.shared.inbound.taken(), outbound: self.shared.outbound.taken() }
    }
}

impl Drop for PodProxy {
    fn drop(&mut self) {
        self.life.cut.cancel();
    }
}

/// Lets the worker watch the listeners.
fn adopt(
    worker: &Worker,
    listeners: [TcpListener; 3],
) -> Result<[TcpListener; 3], (u16, std::io::Error)> {
    let _entered = worker.handle().enter();
    let ports = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];
    let mut adopted = listeners
        .into_iter()
        .map(|listener| TcpListener::from_std(listener.into_std()?))
        .zip(ports)
        .map(|(listener, port)| listener.map_err(|error| (port, error)));
    let mut next = || adopted.next().expect("there are three");
    Ok([next()?, next()?, next()?])
}

/// The tasks of a pod and the two ways to end them.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// Take nothing new.
    pub(super) closing: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
    /// Tasks that nothing waits for to finish, because they do so only when cut.
    watchers: TaskTracker,
}

impl Life {
    pub(super) fn spawn(&self, worker: &Worker, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_into(&self.tasks, worker, task);
    }

    fn spawn_watcher(&self, worker: &Worker, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_into(&self.watchers, worker, task);
    }

    fn spawn_into(
        &self,
        tracker: &TaskTracker,
        worker: &Worker,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let cut = self.cut.clone();
        worker.spawn(tracker, async move {
            // Cut or finished: either way the task is over.
            let _ = cut.run_until_cancelled_owned(task).await;
        });
    }
}

/// What the tasks of a pod share.
#[derive(Debug)]
pub(super) struct PodShared {
    pub(super) context: Arc<ProxyContext>,
    pub(super) dialer: Dialer,
    pub(super) lease: Lease,
    pub(super) info: zds::WorkloadInfo,
    pub(super) roster: Arc<Roster>,
    pub(super) inbound: Arc<Places>,
    pub(super) outbound: Arc<Places>,
    pub(super) tunnels: Arc<Places>,
    pub(super) handshakes: Arc<Handshakes>,
    /// One per worker, made when it is first used.
    pools: Box<[OnceLock<Pool<PeerError>>]>,
}

impl PodShared {
    fn new(
        context: &Arc<ProxyContext>,
        identity: &Identity,
        info: zds::WorkloadInfo,
        netns: PodNetns,
    ) -> Self {
        let (limits, workers) = (&context.settings.limits, context.workers.all().len());
        Self {
            dialer: Dialer::new(context, netns),
            lease: context.certificates.lease(identity),
            info,
            roster: Roster::new(workers),
            inbound: Places::new(limits.inbound_connections, Full::Inbound),
            outbound: Places::new(limits.outbound_connections, Full::Outbound),
            tunnels: Places::new(limits.tunnels, Full::Tunnels),
            handshakes: Handshakes::new(limits),
            pools: (0..workers).map(|_| OnceLock::new()).collect(),
            context: Arc::clone(context),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }

    /// The tunnels of the worker with this [`Worker::index`].
    pub(super) fn pool(&self, worker: usize) -> &Pool<PeerError> {
        self.pools[worker].get_or_init(|| Pool::new(self.context.settings.hbone.clone()))
    }

    /// The worker with this [`Worker::index`].
    pub(super) fn worker(&self, index: usize) -> &Worker {
        &self.context.workers.all()[index]
    }

    fn report_survivors(&self, deadline: Duration) {
        let pod = self.name();
        let (named, count) = self.roster.list(NAMED_SURVIVORS);
        for connection in &named {
            tracing::warn!(%pod, %connection, "connection outlived the drain and is cut");
        }
        let unnamed = count - named.len();
        tracing::warn!(%pod, count, unnamed, ?deadline, "the drain is over");
    }
}
