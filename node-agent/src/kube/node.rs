//! The taint with which a node may begin its life, so that nothing is scheduled before its
//! pods can be captured.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::objects::core_v1;
use super::{KubeApi, KubeError, patiently};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl KubeApi {
    /// Removes the taint with this key from our node, tried until it succeeds or `stop`. To
    /// be called once, when agent and ztunnel both serve; it is never put back: what starts
    /// later is held by the plugin, pod by pod.
    pub async fn remove_taint(&self, key: &str, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let removed = tokio::select! {
                () = stop.cancelled() => return,
                removed = self.try_remove_taint(key) => removed,
            };
            match removed {
                Ok(Removed::Now) => return tracing::info!(key, "the node's taint is removed"),
                Ok(Removed::Before) => return tracing::debug!(key, "the node has no such taint"),
                Err(error) => tracing::warn!(key, %error, "the node's taint is not removed yet"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_remove_taint(&self, key: &str) -> Result<Removed, KubeError> {
        let nodes: Api<SlimNode> = Api::all(self.client.clone());
        let node = patiently("fetch the node", nodes.get(&self.node)).await?;
        let Some(left) = node.taints_but(key) else { return Ok(Removed::Before) };
        // A list is replaced as a whole: only in the version that we have seen.
        let metadata = json!({ "resourceVersion": node.metadata.resource_version });
        let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "taints": left } }));
        let parameters = PatchParams::default();
        patiently("remove the node's taint", nodes.patch(&self.node, &parameters, &patch)).await?;
        Ok(Removed::Now)
    }
}

/// When the taint was removed.
enum Removed {
    Now,
    Before,
}

/// A node, as far as its taints go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SlimNode {
    metadata: ObjectMeta,
    spec: SlimNodeSpec,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SlimNodeSpec {
    /// As they are: what we do not know of them is written back untouched.
    taints: Option<Vec<Value>>,
}

core_v1!(SlimNode, k8s_openapi::api::core::v1::Node, "Node", "nodes");

impl SlimNode {
    /// The other taints, if there is one with this key.
    fn taints_but(&self, key: &str) -> Option<Vec<Value>> {
        let all = self.spec.taints.as_ref()?;
        let others: Vec<Value> = all.iter().filter(|taint| taint["key"] != key).cloned().collect();
        (others.len() < all.len()).then_some(others)
    }
}
