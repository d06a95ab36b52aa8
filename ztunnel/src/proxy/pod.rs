//! One captured pod: its listeners, its connections, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh::Identity;
use netns::PodNetns;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Gate, accept_loop};
use super::app_socket::AppSocket;
use super::context::ProxyContext;
use super::dial::Dialer;
use super::dns::Dns;
use super::listen::bind;
use super::outbound::PeerError;
use super::{ProxyError, inbound, inbound_plain, outbound};
use crate::dns::Resolver;
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
        let dns = Dns::bind(context, &pod, None).await?;
        let shared = Arc::new(PodShared {
            dialer: Dialer::new(
                context.fence.clone(),
                pod.netns,
                context.settings.packet_mark,
                context.telemetry.clone(),
            ),
            lease: context.certificates.lease(&identity),
            pool: Pool::new(context.settings.hbone.clone()),
            context: Arc::clone(context),
            info: pod.info,
            inbound: Arc::default(),
            outbound: Arc::default(),
            resolver: dns.resolver(),
        });
        tracing::info!(pod = %name, uid = %pod.uid, %identity, "pod is served");
        let proxy = Self { shared, life: Life::default() };
        dns.serve(&proxy.life);
        proxy.serve(listeners);
        Ok(proxy)
    }

    fn serve(&self, [outgoing, plain, tunnels]: [TcpListener; 3]) {
        let (life, pod) = (&self.life, &self.shared);
        let half_open = Gate::Limited(Arc::new(Semaphore::new(HALF_OPEN)));
        let shared = Arc::clone(pod);
        life.spawn(accept_loop(outgoing, life.clone(), Gate::Open, move |tcp, peer, _| {
            outbound::serve(Arc::clone(&shared), AppSocket::new(tcp), peer)
        }));
        let shared = Arc::clone(pod);
        life.spawn(accept_loop(plain, life.clone(), Gate::Open, move |tcp, peer, _| {
            inbound_plain::serve(Arc::clone(&shared), AppSocket::new(tcp), peer)
        }));
        let (shared, own) = (Arc::clone(pod), life.clone());
        life.spawn(accept_loop(tunnels, life.clone(), half_open, move |tcp, peer, permit| {
            inbound::serve(Arc::clone(&shared), own.clone(), tcp, peer, permit)
        }));
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

    /// Looks names up through the pod, for workloads that have a hostname and no address.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.shared.resolver
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
    pub(super) resolver: Resolver,
}

impl PodShared {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }
}
