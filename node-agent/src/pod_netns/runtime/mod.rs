//! Asks the container runtime where a pod's sandbox is, over the Container Runtime
//! Interface. What it answers is a claim like any other: whoever asks opens the place and
//! looks whether it is the pod's.

mod info;
pub(crate) mod messages;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

pub use info::{InfoError, Place};
use messages::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter,
    PodSandboxStatusRequest, PodSandboxStatusResponse, READY,
};

use crate::facts::PodUid;

/// Where runtimes listen unless they were told otherwise: containerd, CRI-O, and the
/// containerd of k3s and RKE2, k0s and MicroK8s.
pub const USUAL_SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A runtime that did not answer in time is left alone for so long: pods that are looked
/// for one after the other must not wait for it each.
const REST: Duration = Duration::from_secs(30);
/// The label by which the kubelet marks the sandboxes of a pod.
const UID_LABEL: &str = "io.kubernetes.pod.uid";

/// Why the runtime does not help.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody to ask.
    #[error("there is no socket of a container runtime at any of the known places")]
    Absent,
    /// The call failed.
    #[error("{step} of the runtime at {}: {status}", .socket.display())]
    Call {
        /// What was asked for.
        step: &'static str,
        /// Whom.
        socket: PathBuf,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// No answer.
    #[error("the runtime at {} does not answer within {PATIENCE:?}", .0.display())]
    Silent(PathBuf),
    /// It knows no such pod.
    #[error("the runtime at {} has no sandbox of the pod", .0.display())]
    NoSandbox(PathBuf),
    /// All of the pod's sandboxes have ended.
    #[error("no sandbox of the pod runs at the runtime at {}", .0.display())]
    NotReady(PathBuf),
    /// What it says cannot be read.
    #[error(transparent)]
    Info(#[from] InfoError),
}

/// The sandbox of a pod, as the runtime tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// What CNI calls the container id.
    pub id: String,
    /// Where its network namespace can be opened.
    pub place: Place,
}

/// The container runtime, wherever it listens.
#[derive(Debug)]
pub struct Runtime {
    sockets: Vec<Socket>,
    /// The log says once that nobody helps, and once that somebody does again.
    lost: AtomicBool,
}

#[derive(Debug)]
struct Socket {
    path: PathBuf,
    channel: Channel,
    rests_until: Mutex<Option<Instant>>,
}

impl Runtime {
    /// Connects with the first question. Needs an async runtime around it.
    ///
    /// # Errors
    /// A path that cannot be one of a socket.
    pub fn new(sockets: &[PathBuf]) -> Result<Self, tonic::transport::Error> {
        let sockets = sockets.iter().map(|path| Socket::new(path)).collect::<Result<_, _>>()?;
        Ok(Self { sockets, lost: AtomicBool::new(false) })
    }

    /// The newest sandbox of a pod that runs.
    ///
    /// # Errors
    /// Any [`RuntimeError`]: of several sockets, the last one's.
    pub async fn sandbox(&self, uid: &PodUid) -> Result<Sandbox, RuntimeError> {
        let mut failure = RuntimeError::Absent;
        for socket in self.sockets.iter().filter(|socket| socket.path.exists()) {
            match socket.sandbox(uid).await {
                Ok(sandbox) => {
                    self.report(None);
                    return Ok(sandbox);
                }
                Err(error) => failure = error,
            }
        }
        self.report(Some(&failure));
        Err(failure)
    }

    fn report(&self, failure: Option<&RuntimeError>) {
        let lost = failure.filter(|failure| failure.is_of_the_runtime());
        match lost {
            Some(error) if !self.lost.swap(true, Ordering::Relaxed) => tracing::warn!(
                %error,
                "the container runtime does not tell where pods are; records of earlier ADDs and \
                 /proc are used (CRI_SOCKET names the runtime's socket)"
            ),
            None if self.lost.swap(false, Ordering::Relaxed) => {
                tracing::info!("the container runtime tells again where pods are");
            }
            _ => {}
        }
    }
}

impl RuntimeError {
    /// Whether the runtime is at fault, not this one pod.
    fn is_of_the_runtime(&self) -> bool {
        matches!(self, Self::Absent | Self::Call { .. } | Self::Silent(_))
    }
}

impl Socket {
    fn new(path: &Path) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display()))?;
        let channel = endpoint.connect_timeout(PATIENCE).connect_lazy();
        Ok(Self { path: path.to_owned(), channel, rests_until: Mutex::default() })
    }

    async fn sandbox(&self, uid: &PodUid) -> Result<Sandbox, RuntimeError> {
        let newest = self.newest(uid).await?;
        let asked = PodSandboxStatusRequest { pod_sandbox_id: newest.id.clone(), verbose: true };
        let method = PathAndQuery::from_static("/runtime.v1.RuntimeService/PodSandboxStatus");
        let status: PodSandboxStatusResponse =
            self.call("ask for the sandbox's status", method, asked).await?;
        Ok(Sandbox { id: newest.id, place: info::place(&status.info)? })
    }

    async fn newest(&self, uid: &PodUid) -> Result<PodSandbox, RuntimeError> {
        let label_selector = HashMap::from([(UID_LABEL.to_owned(), uid.0.clone())]);
        let filter = Some(PodSandboxFilter { label_selector });
        let method = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
        let asked = ListPodSandboxRequest { filter };
        let all: ListPodSandboxResponse = self.call("ask for the sandboxes", method, asked).await?;
        // One that does not know the filter would list every pod's.
        let of_pod = |sandbox: &PodSandbox| sandbox.labels.get(UID_LABEL) == Some(&uid.0);
        let (ready, ended): (Vec<_>, Vec<_>) =
            all.items.into_iter().filter(of_pod).partition(|sandbox| sandbox.state == READY);
        let newest = ready.into_iter().max_by_key(|sandbox| sandbox.created_at);
        newest.ok_or_else(|| match ended.is_empty() {
            true => RuntimeError::NoSandbox(self.path.clone()),
            false => RuntimeError::NotReady(self.path.clone()),
        })
    }

    async fn call<Q, A>(
        &self,
        step: &'static str,
        method: PathAndQuery,
        request: Q,
    ) -> Result<A, RuntimeError>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        if self.rests() {
            return Err(RuntimeError::Silent(self.path.clone()));
        }
        let mut grpc = Grpc::new(self.channel.clone());
        let exchange = async {
            let unavailable = |error| tonic::Status::unavailable(format!("{error}"));
            grpc.ready().await.map_err(unavailable)?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(tonic::Request::new(request), method, codec).await
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let (socket, status) = (self.path.clone(), Box::new(status));
                Err(RuntimeError::Call { step, socket, status })
            }
            Err(_) => {
                *self.lock() = Some(Instant::now() + REST);
                Err(RuntimeError::Silent(self.path.clone()))
            }
        }
    }

    fn rests(&self) -> bool {
        self.lock().is_some_and(|until| Instant::now() < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
