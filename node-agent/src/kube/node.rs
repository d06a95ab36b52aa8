//! The taint with which a node may begin its life, so that nothing is scheduled before its
//! pods can be captured.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::objects::SlimNode;
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
        let metadata = json!({ "resourceVersion": node.version() });
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
