//! One captured pod: its listeners, its connections, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh::Identity;
use netns::PodNetns;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Gate, accept_loop};
use super::app_socket::AppSocket;
use super::context::ProxyContext;
use super::dial::Dialer;
use super::listen::{self, GivenListener, Listeners, OpenListener, Served};
use super::outbound::PeerError;
use super::{ProxyError, inbound, inbound_plain, outbound};
use crate::hbone::Pool;
use crate::identity::Lease;

/// Handshakes that peers may have unfinished with one pod. The next wait in the accept
/// queue.
const HALF_OPEN: usize = 256;

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The pod's UID.
    pub uid: String,
    /// Its names.
    pub info: zds::WorkloadInfo,
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
    netns: PodNetns,
    served: Served,
}

impl PodProxy {
    /// Binds the pod's ports, or takes its listeners over, and begins to serve. Cancel-safe: dropped half-way, nothing
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
        let listeners = listen::open(context, &pod.netns, &pod.listeners).await;
        let listeners = listeners.map_err(|error| error.of(&name))?;
        let shared = Arc::new(PodShared {
            dialer: Dialer::new(
                context.fence.clone(),
                pod.netns.clone(),
                context.settings.packet_mark,
            ),
            lease: context.certificates.lease(&identity),
            pool: Pool::new(context.settings.hbone.clone()),
            context: Arc::clone(context),
            info: pod.info,
            inbound: Arc::default(),
            outbound: Arc::default(),
        });
        tracing::info!(pod = %name, uid = %pod.uid, %identity, "pod is served");
        let (life, served) = (Life::default(), Served::default());
        let mut proxy = Self { shared, life, netns: pod.netns, served };
        listeners.into_iter().for_each(|listener| proxy.serve(listener));
        Ok(proxy)
    }

    fn serve(&mut self, listener: OpenListener) {
        self.served.note(&listener);
        let (life, shared) = (self.life.clone(), Arc::clone(&self.shared));
        let OpenListener { at, socket, .. } = listener;
        match at.port {
            zds::port::OUTBOUND => {
                self.life.spawn(accept_loop(socket, life, Gate::Open, move |tcp, peer, _| {
                    outbound::serve(Arc::clone(&shared), AppSocket::new(tcp), peer)
                }));
            }
            zds::port::INBOUND_PLAIN => {
                self.life.spawn(accept_loop(socket, life, Gate::Open, move |tcp, peer, _| {
                    inbound_plain::serve(Arc::clone(&shared), AppSocket::new(tcp), peer)
                }));
            }
            _ => {
                let half_open = Gate::Limited(Arc::new(Semaphore::new(HALF_OPEN)));
                let own = life.clone();
                self.life.spawn(accept_loop(socket, life, half_open, move |tcp, peer, permit| {
                    inbound::serve(Arc::clone(&shared), own.clone(), tcp, peer, permit)
                }));
            }
        }
    }

    /// Serves on these listeners too. Ours stay: a connection may wait there.
    ///
    /// # Errors
    /// [`ProxyError::Listen`].
    pub fn adopt(&mut self, given: Vec<GivenListener>) -> Result<(), ProxyError> {
        let new: Vec<_> = given.into_iter().filter(|given| !self.served.has(given)).collect();
        let opened = listen::open_given(&new).map_err(|error| error.of(&self.shared.name()))?;
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

    /// Accepts no more, tells peers so, and ends what is open.
    pub async fn stop(self, drain: Drain) {
        self.life.tasks.close();
        if let Drain::Graceful(deadline) = drain {
            self.life.closing.cancel();
            // At the deadline the rest is cut, below.
            let _ = timeout(deadline, self.life.tasks.wait()).await;
        }
        self.life.cut.cancel();
        self.life.tasks.wait().await;
        self.shared.pool.close().await;
    }

    /// What is open right now.
    #[must_use]
    pub fn connections(&self) -> Connections {
        Connections {
            inbound: self.shared.inbound.load(Ordering::Relaxed),
            outbound: self.shared.outbound.load(Ordering::Relaxed),
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
}

impl Life {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
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
    pub(super) pool: Pool<PeerError>,
    pub(super) info: zds::WorkloadInfo,
    pub(super) inbound: Arc<AtomicUsize>,
    pub(super) outbound: Arc<AtomicUsize>,
}

impl PodShared {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }
}
