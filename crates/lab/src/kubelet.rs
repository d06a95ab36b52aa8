//! What a kubelet does for a pod: a sandbox, tried again while a plugin asks for it, and
//! the object's status.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cni_runtime::CniError;
use crate::kube_client::{KubeClient, KubeError, NAMESPACES, pod_path};
use crate::net::links::LinkError;
use crate::net::sysctl::SysctlError;
use crate::node::Node;
use crate::pod::{Pod, PodSpec, TryAgain, Users};
use crate::sandbox::{Sandbox, Workshop};

/// The pause between two attempts grows like this.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A pod could not be made, or not be ended in order.
#[derive(Debug)]
pub struct PodError {
    /// Its namespace and name.
    pub pod: String,
    /// Which step failed.
    pub failure: PodFailure,
}

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum PodFailure {
    /// An object could not be made or changed.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The namespace could not be made.
    #[error(transparent)]
    Netns(#[from] netns::NetnsError),
    /// A namespace of other users could not be made.
    #[error("make a network namespace of other users: {0}")]
    Users(String),
    /// The namespace could not be prepared.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The loopback link could not be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The network could not be made or unmade.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The plugins' result holds no address.
    #[error("the result of ADD has no usable address: {0}")]
    NoAddress(Value),
    /// Another pod's namespace has that file name already.
    #[error("its network namespace {0} exists already")]
    Taken(String),
}

impl PodError {
    /// The code that a plugin gave, if a plugin failed.
    #[must_use]
    pub fn cni_code(&self) -> Option<u32> {
        match &self.failure {
            PodFailure::Cni(error) => error.code(),
            _ => None,
        }
    }
}

impl fmt::Display for PodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}: {}", self.pod, self.failure)
    }
}

impl std::error::Error for PodError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

/// The kubelets of all nodes.
#[derive(Debug)]
pub(crate) struct Kubelet {
    pub client: KubeClient,
    pub workshop: Workshop,
    running: Mutex<BTreeMap<(String, String), Arc<Sandbox>>>,
}

impl Kubelet {
    pub fn new(client: KubeClient, workshop: Workshop) -> Self {
        Self { client, workshop, running: Mutex::default() }
    }

    pub async fn create(&self, node: &Node, spec: &PodSpec) -> Result<Pod, PodError> {
        let pod = format!("{}/{}", spec.namespace, spec.name);
        let made = match self.create_objects(node, spec).await {
            Ok(uid) => self.run_or_forget(node, spec, uid).await,
            Err(error) => Err(error.into()),
        };
        made.map_err(|failure| PodError { pod, failure })
    }

    pub async fn delete(&self, namespace: &str, name: &str) -> Result<(), PodError> {
        let key = (namespace.to_owned(), name.to_owned());
        let sandbox = self.running().remove(&key);
        let path = pod_path(namespace, name);
        // Everyone who watches sees the pod end before its network goes.
        let deleted = self.client.delete(&path).await;
        let unmade = match sandbox {
            Some(sandbox) => sandbox.remove().await,
            None => Ok(()),
        };
        let gone = self.forget(&path).await;
        let all = unmade.map_err(PodFailure::from).and(deleted.and(gone).map_err(Into::into));
        all.map_err(|failure| PodError { pod: format!("{namespace}/{name}"), failure })
    }

    /// The pods that run, for an end in order.
    pub fn names(&self) -> Vec<(String, String)> {
        self.running().keys().cloned().collect()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Sandbox>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create_objects(&self, node: &Node, spec: &PodSpec) -> Result<String, KubeError> {
        let PodSpec { namespace, name, service_account, .. } = spec;
        ensure_account(&self.client, namespace, service_account).await?;
        let port = |(name, number)| json!({"name": name, "containerPort": number});
        let ports: Vec<_> = spec.ports.iter().map(port).collect();
        let mut container = json!({"name": "app", "image": "lab/app", "ports": ports});
        let kinds = ["livenessProbe", "readinessProbe", "startupProbe"];
        for (kind, probe) in kinds.into_iter().zip(&spec.probes) {
            container[kind] = probe.as_in_a_spec();
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": spec.labels,
                "annotations": spec.annotations,
            },
            "spec": {
                "nodeName": node.name(),
                "hostUsers": spec.users == Users::Node,
                "serviceAccountName": service_account,
                "containers": [container],
            },
        });
        let pods = format!("{NAMESPACES}/{namespace}/pods");
        let created = self.client.create(&pods, &object).await?;
        Ok(created["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    async fn run_or_forget(
        &self,
        node: &Node,
        spec: &PodSpec,
        uid: String,
    ) -> Result<Pod, PodFailure> {
        let made = self.run(node, spec, uid).await;
        if made.is_err() {
            // The caller gets the first error; a pod that never ran leaves no object.
            let path = pod_path(&spec.namespace, &spec.name);
            if let Err(error) = self.forget(&path).await {
                tracing::warn!(path, %error, "the object of a failed pod stays");
            }
        }
        made
    }

    /// The object goes at once, as when the last container has ended.
    async fn forget(&self, path: &str) -> Result<(), KubeError> {
        self.client.delete(&format!("{path}?gracePeriodSeconds=0")).await
    }

    async fn run(&self, node: &Node, spec: &PodSpec, uid: String) -> Result<Pod, PodFailure> {
        let sandbox = self.sandbox(node, spec, &uid).await?;
        let ips = sandbox.addresses();
        let reported = match ips.is_empty() {
            true => Err(PodFailure::NoAddress(sandbox.result.clone())),
            false => self.report(node, spec, &ips).await.map_err(Into::into),
        };
        if let Err(failure) = reported {
            if let Err(error) = sandbox.remove().await {
                tracing::warn!(place = sandbox.place.name(), %error, "undoing a failed pod");
            }
            return Err(failure);
        }
        let sandbox = Arc::new(sandbox);
        let (namespace, name) = (spec.namespace.clone(), spec.name.clone());
        self.running().insert((namespace.clone(), name.clone()), Arc::clone(&sandbox));
        tracing::info!(namespace, name, node = node.name(), ?ips, "pod runs");
        Ok(Pod { namespace, name, uid, node: node.number(), ips, sandbox })
    }

    /// Tries with a new sandbox each time, as a kubelet does: what a failed attempt might
    /// have left in the old one is gone with it.
    async fn sandbox(&self, node: &Node, spec: &PodSpec, uid: &str) -> Result<Sandbox, PodFailure> {
        let until = Instant::now() + self.workshop.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.workshop.sandbox(node.cni(), spec, uid).await {
                Err(PodFailure::Cni(error)) if error.is_try_again() => error,
                other => return other,
            };
            if spec.try_again == TryAgain::Never || Instant::now() + pause >= until {
                return Err(error.into());
            }
            tracing::info!(spec.namespace, spec.name, %error, "a plugin asks to try again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn report(&self, node: &Node, spec: &PodSpec, ips: &[IpAddr]) -> Result<(), KubeError> {
        let all: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let condition = |kind| json!({"type": kind, "status": "True"});
        let kinds = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
        let patch = json!({"status": {
            "phase": "Running",
            "hostIP": node.address(),
            "podIP": ips.first(),
            "podIPs": all,
            "conditions": kinds.map(condition),
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0}],
        }});
        let path = format!("{}/status", pod_path(&spec.namespace, &spec.name));
        self.client.merge_patch(&path, &patch).await.map(drop)
    }
}

/// Makes a namespace and a service account in it, unless they are there.
pub(crate) async fn ensure_account(
    client: &KubeClient,
    namespace: &str,
    account: &str,
) -> Result<(), KubeError> {
    let object = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    client.ensure(NAMESPACES, &object("Namespace", namespace)).await?;
    let accounts = format!("{NAMESPACES}/{namespace}/serviceaccounts");
    client.ensure(&accounts, &object("ServiceAccount", account)).await
}
