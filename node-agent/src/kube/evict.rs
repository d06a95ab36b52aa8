//! Evicts a pod: the API lets it end as its disruption budgets allow, and its controller makes
//! another one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::objects::SlimPod;
use super::{KubeApi, KubeError, patiently};
use crate::facts::PodFacts;

/// Pods whose owner is their node are the kubelet's own, which no eviction restarts.
const NODE: &str = "Node";

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod ends.
    Begun,
    /// Not now: in the API's words, mostly about a disruption budget.
    Blocked(String),
    /// It ends already, or is gone.
    Gone,
    /// Nobody would make another one in its place, so it was left alone.
    Unmanaged,
}

impl KubeApi {
    /// Asks once for the eviction of this pod, and of no other that has its name.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn evict(&self, pod: &PodFacts) -> Result<Eviction, KubeError> {
        let pods: Api<SlimPod> = Api::namespaced(self.client.clone(), &pod.name.namespace);
        let found = patiently("fetch the pod", pods.get_metadata_opt(&pod.name.name)).await?;
        let Some(metadata) = found.map(|found| found.metadata) else { return Ok(Eviction::Gone) };
        let is_another = metadata.uid.as_ref() != Some(&pod.uid.0);
        if is_another || metadata.deletion_timestamp.is_some() {
            return Ok(Eviction::Gone);
        }
        if !is_managed(&metadata) {
            return Ok(Eviction::Unmanaged);
        }
        // Written by hand: the library's own request names the options in a way that the API
        // does not know, and the UID would not count.
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod.name.name, "namespace": pod.name.namespace },
            "deleteOptions": { "preconditions": { "uid": pod.uid.0 } },
        });
        let parameters = PostParams::default();
        let request =
            pods.create_subresource::<_, Value>("eviction", &pod.name.name, &parameters, &eviction);
        match patiently("evict the pod", request).await {
            Ok(_) => Ok(Eviction::Begun),
            Err(KubeError::Api { source, step }) => match *source {
                // A conflict is another pod, which the next attempt sees, or passes.
                kube::Error::Api(status) if matches!(status.code, 409 | 429) => {
                    Ok(Eviction::Blocked(status.message.clone()))
                }
                kube::Error::Api(status) if status.code == 404 => Ok(Eviction::Gone),
                other => Err(KubeError::Api { step, source: Box::new(other) }),
            },
            Err(error) => Err(error),
        }
    }
}

fn is_managed(metadata: &ObjectMeta) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.kind != NODE)
}
