//! One captured pod: its listeners, its connections, its end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use mesh::Identity;
use netns::PodNetns;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zds::WorkloadInfo;

use super::accept::{Arrival, accept_loop};
use super::context::ProxyContext;
use super::dial::Dialer;
use super::dns::Dns;
use super::limits::{Full, Handshakes, Places};
use super::listen::{self, GivenListener, Listeners, OpenListener, Served};
use super::outbound::PeerError;
use super::own::OpenPorts;
use super::roster::{self, Roster};
use super::{ProxyError, inbound, inbound_plain, outbound};
use crate::dns::Resolver;
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
    pub info: WorkloadInfo,
    /// Where its listeners and sockets live.
    pub netns: PodNetns,
    /// Its listeners.
    pub listeners: Listeners,
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
    /// Where its connections are accepted.
    home: Worker,
    netns: PodNetns,
    served: Served,
}

impl PodProxy {
    /// Binds the pod's ports, or takes its listeners over, and begins to serve.
    /// Cancel-safe: dropped half-way, nothing is left.
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
        let home = context.workers.least_busy().clone();
        let listeners = listen::open(context, &pod.netns, &pod.listeners, &home).await;
        let listeners = listeners.map_err(|error| error.of(&name))?;
        let dns = Dns::bind(context, &pod, &home, None).await?;
        let Pod { uid, info, netns, .. } = pod;
        let dialer = Dialer::new(context, netns.clone(), context.settings.source_address);
        let shared = PodShared::new(context, &identity, info, dialer, dns.resolver());
        tracing::info!(pod = %name, %uid, %identity, "pod is served");
        let proxy = Self::of(shared, home, netns, listeners);
        dns.serve(&proxy.shared, &proxy.life, &proxy.home);
        Ok(proxy)
    }

    /// Begins to serve.
    pub(super) fn of(
        shared: PodShared,
        home: Worker,
        netns: PodNetns,
        listeners: impl IntoIterator<Item = OpenListener>,
    ) -> Self {
        let (shared, life, served) = (Arc::new(shared), Life::default(), Served::default());
        let watching = join(roster::watch(Arc::clone(&shared)), renewals(Arc::clone(&shared)));
        life.spawn_watcher(&home, watching.map(drop));
        let mut proxy = Self { shared, life, home, netns, served };
        listeners.into_iter().for_each(|listener| proxy.serve(listener));
        proxy
    }

    fn serve(&mut self, listener: OpenListener) {
        self.served.note(&listener);
        let (shared, life) = (Arc::clone(&self.shared), self.life.clone());
        let OpenListener { at, socket, .. } = listener;
        match at.port {
            zds::port::OUTBOUND => {
                let serve = move |arrival| outbound::serve(Arc::clone(&shared), arrival);
                self.accept(socket, serve);
            }
            zds::port::INBOUND_PLAIN => {
                let serve = move |arrival| inbound_plain::serve(Arc::clone(&shared), arrival);
                self.accept(socket, serve);
            }
            _ => {
                let serve =
                    move |arrival| inbound::serve(Arc::clone(&shared), life.clone(), arrival);
                self.accept(socket, serve);
            }
        }
    }

    fn accept<Served>(
        &self,
        socket: Arc<TcpListener>,
        serve: impl Fn(Arrival) -> Served + Clone + Send + 'static,
    ) where
        Served: Future<Output = ()> + Send + 'static,
    {
        let (shared, life) = (Arc::clone(&self.shared), self.life.clone());
        let accepting = accept_loop(socket, shared, life, self.home.clone(), serve);
        self.life.spawn(&self.home, accepting);
    }

    /// Serves on these listeners too. Ours stay: a connection may wait there.
    ///
    /// # Errors
    /// [`ProxyError::Listen`].
    pub fn adopt(&mut self, given: Vec<GivenListener>) -> Result<(), ProxyError> {
        let new: Vec<_> = given.into_iter().filter(|given| !self.served.has(given)).collect();
        let opened = listen::open_given(&new, &self.home);
        let opened = opened.map_err(|error| error.of(&self.shared.name()))?;
        opened.into_iter().for_each(|listener| self.serve(listener));
        Ok(())
    }

    /// What it serves on, to be shared with an agent.
    #[must_use]
    pub fn listeners(&self) -> Vec<OpenListener> {
        self.served.newest()
    }

    /// The pod's namespace.
    #[must_use]
    pub fn netns(&self) -> &PodNetns {
        &self.netns
    }

    /// Looks names up through the pod, for workloads that have a hostname and no address.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.shared.resolver
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

/// After a renewal, connections begin anew with the new certificate; what is open goes on.
async fn renewals(pod: Arc<PodShared>) {
    let mut generation = pod.lease.generation();
    loop {
        pod.lease.renewed(generation).await;
        let before = std::mem::replace(&mut generation, pod.lease.generation());
        // Who waited for the first certificate connects with that.
        if before > 0 {
            pod.pools.iter().filter_map(OnceLock::get).for_each(Pool::retire_all);
        }
    }
}

impl Drop for PodProxy {
    fn drop(&mut self) {
        self.life.cut.cancel();
    }
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
        // Cut or finished: either way the task is over. No `async` block here: it would keep
        // room for two of the task.
        worker.spawn(tracker, task.with_cancellation_token_owned(self.cut.clone()));
    }
}

/// What the tasks of a pod share.
#[derive(Debug)]
pub(super) struct PodShared {
    pub(super) context: Arc<ProxyContext>,
    pub(super) dialer: Dialer,
    pub(super) lease: Lease,
    pub(super) info: WorkloadInfo,
    pub(super) roster: Arc<Roster>,
    pub(super) inbound: Arc<Places>,
    pub(super) outbound: Arc<Places>,
    pub(super) tunnels: Arc<Places>,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) resolver: Resolver,
    pub(super) open_ports: OpenPorts,
    /// One per worker, made when it is first used.
    pools: Box<[OnceLock<Pool<PeerError>>]>,
}

impl PodShared {
    pub(super) fn new(
        context: &Arc<ProxyContext>,
        identity: &Identity,
        info: WorkloadInfo,
        dialer: Dialer,
        resolver: Resolver,
    ) -> Self {
        let (limits, workers) = (&context.settings.limits, context.workers.all().len());
        Self {
            dialer,
            lease: context.certificates.lease(identity),
            info,
            roster: Roster::new(workers),
            inbound: Places::new(limits.inbound_connections, Full::Inbound),
            outbound: Places::new(limits.outbound_connections, Full::Outbound),
            tunnels: Places::new(limits.tunnels, Full::Tunnels),
            handshakes: Handshakes::new(limits),
            resolver,
            open_ports: OpenPorts::All,
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
        let WorkloadInfo { namespace, name, .. } = &self.info;
        let named = self.context.telemetry.open_connections_of(namespace, name, NAMED_SURVIVORS);
        let count = self.inbound.taken() + self.outbound.taken();
        for connection in &named {
            tracing::warn!(%pod, %connection, "connection outlived the drain and is cut");
        }
        let unnamed = count.saturating_sub(named.len());
        tracing::warn!(%pod, count, unnamed, ?deadline, "the drain is over");
    }
}
