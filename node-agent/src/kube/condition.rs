//! The condition of the Node object that says whether its agent lets pods of the mesh in.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{KubeApi, KubeError, patiently};

/// The condition's type.
const TYPE: &str = "SluiceReady";

/// What the agent says of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Pods of the mesh are captured and start.
    Serves,
    /// They wait, for these things.
    Waits(Vec<&'static str>),
    /// The agent was stopped, and its node is as it left it.
    Stopped,
    /// The agent ended with this error.
    Failed(String),
}

impl NodeState {
    /// Status, reason and message.
    fn says(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Serves => ("True", "AgentServes", "pods of the mesh are let in".into()),
            Self::Waits(things) => {
                ("False", "AgentWaits", format!("pods of the mesh wait for {}", things.join("; ")))
            }
            Self::Stopped => (
                "Unknown",
                "AgentStopped",
                "captured pods stay captured; pods of the mesh that start now wait".into(),
            ),
            Self::Failed(error) => ("False", "AgentFailed", error.clone()),
        }
    }
}

impl KubeApi {
    /// Writes the condition, with the time as a sign of life.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn report_node(&self, state: &NodeState) -> Result<(), KubeError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (status, reason, message) = state.says();
        let now = Time(Timestamp::now());
        let mut condition = json!({
            "type": TYPE, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now,
        });
        let node = patiently("fetch the node", nodes.get_status(&self.node)).await?;
        let before = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if !before.iter().any(|other| other.type_ == TYPE && other.status == status) {
            condition["lastTransitionTime"] = json!(now);
        }
        // Others' conditions in the list are left as they are: it is merged by type.
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let parameters = PatchParams::default();
        let patched = nodes.patch_status(&self.node, &parameters, &patch);
        patiently("write the node's condition", patched).await.map(drop)
    }
}
