//! One captured pod: its listeners, its connections, its end.

use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use mesh::Identity;
use netns::{PodNetns, Workplace};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zds::WorkloadInfo;

use super::accept::{Arrival, accept_loop};
use super::context::{ProxyContext, Role};
use super::dial::Dialer;
use super::dns::Dns;
use super::limits::{Full, Handshakes, Places};
use super::listen::{self, Listeners, NameServer, OpenListener, Served, Socket};
use super::outbound::PeerError;
use super::own::OpenPorts;
use super::own_identity::OwnIdentity;
use super::roster::{self, Roster};
use super::{ProxyError, inbound, inbound_plain, outbound};
use crate::dns::Resolver;
use crate::hbone::Pool;
use crate::source::KeptPod;
use crate::telemetry::Direction;
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
    pub netns: Workplace,
    /// Its listeners.
    pub listeners: Listeners,
    /// Its name server.
    pub name_server: NameServer,
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
    pub(super) shared: Arc<PodShared>,
    life: Life,
    /// Where its connections are accepted.
    pub(super) home: Worker,
    netns: Workplace,
    pub(super) served: Served,
    /// `None` of ztunnel's own pod, which nobody captures.
    pub(super) dns: Option<Box<Dns>>,
}

impl PodProxy {
    /// Binds the pod's ports, or takes its listeners over, and begins to serve.
    /// Cancel-safe: dropped half-way, nothing is left.
    ///
    /// # Errors
    /// [`ProxyError`], naming the pod and, where it is about one, the port.
    pub async fn start(context: &Arc<ProxyContext>, pod: Pod) -> Result<Self, ProxyError> {
        let name = format!("{}/{}", pod.info.namespace, pod.info.name);
        let identity = PodShared::identity(context, &pod.info)
            .map_err(|source| ProxyError::Identity { pod: name.clone(), source })?;
        let home = context.workers.least_busy().clone();
        let listeners = match context.settings.role {
            Role::Proxy => listen::open(context, &pod.netns, &pod.listeners, &home).await,
            Role::NameServer => Ok(Vec::new()),
        };
        let listeners = listeners.map_err(|error| error.of(&name))?;
        let dns = Dns::new(context, &pod);
        let lookups = dns.open(context, (&name, &home), &pod.name_server).await?;
        let Pod { uid, info, netns, .. } = pod;
        let source_address = context.settings.source_address;
        let dialer = Dialer { netns: netns.clone(), source_address };
        let shared = PodShared::new(context, identity, info, dialer, dns.resolver());
        tracing::debug!(pod = %name, %uid, "begins to serve");
        let mut proxy = Self::of(shared, home, netns, listeners);
        proxy.dns = Some(Box::new(dns));
        lookups.into_iter().for_each(|listener| proxy.serve(listener));
        Ok(proxy)
    }

    /// Begins to serve.
    pub(super) fn of(
        shared: PodShared,
        home: Worker,
        netns: Workplace,
        listeners: impl IntoIterator<Item = OpenListener>,
    ) -> Self {
        let (shared, life, served) = (Arc::new(shared), Life::default(), Served::default());
        let watching =
            join(roster::watch(Arc::clone(&shared)), retire_tunnels(Arc::clone(&shared)));
        life.spawn_watcher(&home, watching.map(drop));
        let mut proxy = Self { shared, life, home, netns, served, dns: None };
        listeners.into_iter().for_each(|listener| proxy.serve(listener));
        proxy
    }

    pub(super) fn serve(&mut self, listener: OpenListener) {
        self.served.note(&listener);
        let (shared, life) = (Arc::clone(&self.shared), self.life.clone());
        if listener.at.is_for_lookups() {
            if let Some(dns) = &mut self.dns {
                dns.serve(listener, &self.shared, &self.life, &self.home);
            }
            return;
        }
        let OpenListener { at, socket: Socket::Connections(socket), .. } = listener else { return };
        match at.port {
            zds::port::OUTBOUND => {
                let serve = move |arrival| outbound::serve(Arc::clone(&shared), arrival);
                self.accept(socket, Direction::Outbound, serve);
            }
            zds::port::INBOUND_PLAIN => {
                let serve = move |arrival| inbound_plain::serve(Arc::clone(&shared), arrival);
                self.accept(socket, Direction::Inbound, serve);
            }
            _ => {
                let serve =
                    move |arrival| inbound::serve(Arc::clone(&shared), life.clone(), arrival);
                self.accept(socket, Direction::Inbound, serve);
            }
        }
    }

    fn accept<Served>(
        &self,
        socket: Arc<TcpListener>,
        direction: Direction,
        serve: impl Fn(Arrival) -> Served + Clone + Send + 'static,
    ) where
        Served: Future<Output = ()> + Send + 'static,
    {
        let (shared, life) = (Arc::clone(&self.shared), self.life.clone());
        let accepting = accept_loop(socket, shared, (life, direction), self.home.clone(), serve);
        self.life.spawn(&self.home, accepting);
    }

    /// What it serves on, to be shared with an agent.
    #[must_use]
    pub fn listeners(&self) -> Vec<OpenListener> {
        self.served.newest()
    }

    /// The pod's namespace; none when it serves the machine that ztunnel runs on.
    #[must_use]
    pub fn netns(&self) -> Option<&PodNetns> {
        self.netns.pod()
    }

    /// Is everything known that it takes to serve? Connections can be routed and judged once
    /// the pod's workload is known to a complete view; lookups are answered without.
    #[must_use]
    pub fn is_able(&self) -> bool {
        match self.shared.context.settings.role {
            Role::Proxy => self.shared.lookup().is_ok(),
            Role::NameServer => true,
        }
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

/// After a renewal, and as somebody else, the pod makes its connections anew.
async fn retire_tunnels(pod: Arc<PodShared>) {
    let pools = || pod.pools.iter().filter_map(OnceLock::get).for_each(Pool::retire_all);
    pod.identity.retire_tunnels(pools).await;
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
    /// The same for tasks that take nothing new after `closing` either, a child of ours.
    pub(super) fn closed_by(&self, closing: CancellationToken) -> Self {
        Self { closing, ..self.clone() }
    }

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
    pub(super) identity: OwnIdentity,
    pub(super) info: WorkloadInfo,
    pub(super) roster: Arc<Roster>,
    pub(super) inbound: Arc<Places>,
    pub(super) outbound: Arc<Places>,
    pub(super) tunnels: Arc<Places>,
    pub(super) handshakes: Handshakes,
    pub(super) resolver: Resolver,
    pub(super) open_ports: OpenPorts,
    /// Its workload stays in the view: policies are judged by it.
    _kept: KeptPod,
    /// One per worker, made when it is first used.
    pools: Box<[OnceLock<Pool<PeerError>>]>,
}

impl PodShared {
    pub(super) fn new(
        context: &Arc<ProxyContext>,
        identity: OwnIdentity,
        info: WorkloadInfo,
        dialer: Dialer,
        resolver: Resolver,
    ) -> Self {
        let (limits, workers) = (&context.settings.limits, context.workers.all().len());
        Self {
            dialer,
            identity,
            _kept: context.view.keep_pod(&info.namespace, &info.name),
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

    /// The names must make an identity, in whatever trust domain.
    pub(super) fn identity(
        context: &ProxyContext,
        info: &WorkloadInfo,
    ) -> Result<OwnIdentity, mesh::IdentityError> {
        let named = |domain: &str| Identity::new(domain, &info.namespace, &info.service_account);
        let guess = match &*context.trust_domain.load() {
            Some(domain) => Some(named(domain)?),
            None => named("").map(|_| None)?,
        };
        Ok(OwnIdentity::new(&context.certificates, guess.as_ref()))
    }

    /// Who the pod is, as the control plane says.
    pub(super) fn confirm(&self, identity: &Identity) {
        if self.identity.confirm(identity) {
            tracing::debug!(pod = %self.name(), %identity, "the pod's identity");
            let domain = identity.trust_domain().to_owned();
            self.context.trust_domain.store(Some(Arc::new(domain)));
        }
    }

    /// Why there was no certificate in time.
    pub(super) fn no_certificate(&self) -> String {
        match self.identity.known() {
            Some(identity) => format!("the CA did not answer in time for {identity}"),
            None => "the control plane has not said the pod's trust domain in time".to_owned(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }

    /// Connections and tunnels that are open.
    pub(super) fn held(&self) -> usize {
        let places = [&self.inbound, &self.outbound, &self.tunnels];
        places.map(|places| places.taken()).iter().sum::<usize>() + self.handshakes.taken()
    }

    /// Tells the operator, now and then, that there were no descriptors for this pod.
    pub(super) fn short_of_descriptors(&self) {
        self.context.descriptors.tell(self);
    }

    /// Are there descriptors enough to keep this socket for this pod?
    pub(super) fn may_keep(&self, socket: &impl AsRawFd) -> bool {
        self.context.descriptors.allow(socket, self.held())
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
