//! The only room that talks to the Kubernetes API.

mod client;
mod condition;
mod events;
mod evict;
mod metrics;
mod node;
mod objects;
mod probes;
mod series;
mod sight;
mod survey;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};

pub use condition::NodeState;
pub use evict::Eviction;
pub use metrics::Metrics;
pub use survey::{Listing, Unread, namespace_facts, pod_facts};

use crate::facts::{Annotations, NamespaceFacts, PodFacts, PodName};
use events::Events;
use objects::{ENABLED, OBSERVED, REDIRECTION, SlimNamespace, SlimPod};
use sight::Sight;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which request failed.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig, or the service account of our own pod.
    #[error("find the Kubernetes API{}: {reason}", named(.file.as_deref()))]
    Settings {
        /// The kubeconfig.
        file: Option<std::path::PathBuf>,
        /// What is wrong with it.
        reason: String,
    },
    /// The API refused or cannot be reached.
    #[error("{step}: {}", with_causes(source.as_ref()))]
    Api {
        /// What was asked for.
        step: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer.
    #[error("{step}: the Kubernetes API did not answer within {PATIENCE:?}")]
    TimedOut {
        /// What was asked for.
        step: &'static str,
    },
    /// The pod has ended, or another one has its name now.
    #[error("pod {0} is gone, or another one has its name now")]
    PodGone(PodName),
}

fn named(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!(" by {}", file.display()))
}

/// An error with what caused it, in one line: the client's errors name the step only.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What an Event tells about a pod; the names are stable, and listed in `docs/events.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// Capture was observed.
    Captured,
    /// Capture does not succeed.
    CaptureFailed,
    /// The pod left the mesh.
    Released,
    /// Something in the pod differed from what it should be.
    Drifted,
    /// Somebody's policy rule in the pod comes before ours.
    ForeignPolicyRule,
    /// Somebody in the pod undoes what is repaired, again and again.
    Flapping,
    /// An option of the pod means nothing.
    BadOption,
    /// What the pod wants was changed, and counts.
    OptionsApplied,
    /// Connections older than the capture were ended.
    OlderConnectionsEnded,
    /// The pod was found running outside the mesh, and nobody had told of its start.
    StartedUnseen,
    /// One that belongs to the mesh is evicted for it.
    Evicted,
    /// It is to be evicted, and cannot be yet.
    EvictionDelayed,
    /// It was to be evicted, and nobody would make another one.
    NotEvicted,
    /// Of the node: somebody removes our plugin from the runtime's configuration again and
    /// again.
    ConflistContested,
    /// Of the node: our plugin cannot be put into the runtime's configuration.
    ConflistTrouble,
}

impl EventReason {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Captured => ("Captured", "Normal"),
            Self::CaptureFailed => ("CaptureFailed", "Warning"),
            Self::Released => ("Released", "Normal"),
            Self::Drifted => ("Drifted", "Warning"),
            Self::ForeignPolicyRule => ("ForeignPolicyRule", "Warning"),
            Self::Flapping => ("Flapping", "Warning"),
            Self::BadOption => ("BadOption", "Warning"),
            Self::OptionsApplied => ("OptionsApplied", "Normal"),
            Self::OlderConnectionsEnded => ("OlderConnectionsEnded", "Normal"),
            Self::StartedUnseen => ("StartedUnseen", "Warning"),
            Self::Evicted => ("Evicted", "Normal"),
            Self::EvictionDelayed => ("EvictionDelayed", "Warning"),
            Self::NotEvicted => ("NotEvicted", "Warning"),
            Self::ConflistContested => ("ConflistContested", "Warning"),
            Self::ConflistTrouble => ("ConflistTrouble", "Warning"),
        }
    }

    /// What kind of object it is told of.
    fn kind(self) -> &'static str {
        match self {
            Self::ConflistContested | Self::ConflistTrouble => "Node",
            _ => "Pod",
        }
    }
}

/// The Kubernetes API, seen from one node.
#[derive(Clone)]
pub struct KubeApi {
    client: Client,
    node: String,
    metrics: Metrics,
    events: Arc<Events>,
    sight: Sight,
}

impl std::fmt::Debug for KubeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeApi").field("node", &self.node).finish_non_exhaustive()
    }
}

impl KubeApi {
    /// Prepares to talk; does not connect yet.
    ///
    /// # Errors
    /// [`KubeError::Settings`].
    pub async fn new(
        kubeconfig: Option<&Path>,
        node: String,
        metrics: Metrics,
    ) -> Result<Self, KubeError> {
        let wrong =
            |reason: String| KubeError::Settings { file: kubeconfig.map(Path::to_owned), reason };
        let config = match kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(|error| wrong(error.to_string()))?;
                kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| wrong(error.to_string()))?
            }
            None => kube::Config::incluster().map_err(|error| wrong(error.to_string()))?,
        };
        let client =
            client::client(config, client::SILENCE).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::with_client(client, node, metrics))
    }

    /// Talks through `client`.
    #[must_use]
    pub fn with_client(client: Client, node: String, metrics: Metrics) -> Self {
        let (events, sight) = (Arc::default(), Sight::default());
        Self { client, node, metrics, events, sight }
    }

    /// Whether changes of pods and namespaces are heard of: both watches stand.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.sight.is_clear()
    }

    /// Fetches one pod.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn pod(&self, name: &PodName) -> Result<Option<PodFacts>, KubeError> {
        let pods: Api<SlimPod> = Api::namespaced(self.client.clone(), &name.namespace);
        let found = patiently("fetch the pod", pods.get_opt(&name.name)).await?;
        Ok(found.and_then(SlimPod::facts))
    }

    /// Fetches all pods of this node.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn own_pods(&self) -> Result<Vec<PodFacts>, KubeError> {
        let pods: Api<SlimPod> = Api::all(self.client.clone());
        let ours = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let found = patiently("list the node's pods", pods.list(&ours)).await?;
        Ok(found.items.into_iter().filter_map(SlimPod::facts).collect())
    }

    /// Fetches one namespace.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn namespace(&self, name: &str) -> Result<Option<NamespaceFacts>, KubeError> {
        let namespaces: Api<SlimNamespace> = Api::all(self.client.clone());
        let found = patiently("fetch the pod's namespace", namespaces.get_opt(name)).await?;
        Ok(found.and_then(SlimNamespace::facts))
    }

    /// Writes our annotations of one pod, and only of that pod: its UID goes along, so
    /// that another pod of the same name is refused by the API server.
    ///
    /// # Errors
    /// Any [`KubeError`] but [`KubeError::Settings`].
    pub async fn annotate(&self, pod: &PodFacts, said: &Annotations) -> Result<(), KubeError> {
        let redirection = said.redirection.then_some(ENABLED);
        let annotations = json!({ REDIRECTION: redirection, OBSERVED: said.observed });
        self.write(pod, annotations).await
    }

    /// Writes what people are told about one pod, and leaves alone what peers are told.
    ///
    /// # Errors
    /// As [`KubeApi::annotate`].
    pub async fn observed(&self, pod: &PodFacts, text: &str) -> Result<(), KubeError> {
        self.write(pod, json!({ OBSERVED: text })).await
    }

    /// In a merge patch, null removes.
    async fn write(&self, pod: &PodFacts, annotations: Value) -> Result<(), KubeError> {
        let pods: Api<SlimPod> = Api::namespaced(self.client.clone(), &pod.name.namespace);
        let metadata = json!({ "uid": pod.uid.0, "annotations": annotations });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let parameters = PatchParams::default();
        let request = pods.patch(&pod.name.name, &parameters, &patch);
        match patiently("annotate the pod", request).await {
            Ok(_) => Ok(()),
            Err(KubeError::Api { source, .. }) if is_gone(&source) => {
                Err(KubeError::PodGone(pod.name.clone()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Servers say in two ways that the UID of a patch is not that of the pod: by a conflict, or
/// by a field that must not change.
fn is_gone(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let details = status.details.iter();
    let other_uid = details.flat_map(|it| &it.causes).any(|cause| cause.field == "metadata.uid");
    matches!(status.code, 404 | 409) || status.code == 422 && other_uid
}

async fn patiently<T>(
    step: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|source| KubeError::Api { step, source: Box::new(source) }),
        Err(_) => Err(KubeError::TimedOut { step }),
    }
}

#[cfg(test)]
mod tests;
