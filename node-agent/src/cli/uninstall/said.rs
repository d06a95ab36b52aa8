//! What the API says of us on this node: what peers and people read in pods, and the node's
//! condition. Where the API cannot be reached that stays, and the rest is done all the same.

use super::survey::Found;
use super::thing::Thing;
use super::{Config, Node};
use crate::facts::{Annotations, PodFacts};
use crate::kube::{KubeApi, KubeError, Metrics};

/// What that means.
const UNTOLD: &str = "peers are not told, and use the tunnel to pods of this node until those \
                      restart or lose the annotation ambient.istio.io/redirection";

/// The API, or in words why there is none.
pub(super) async fn api(config: &Config) -> Result<KubeApi, String> {
    let kube = config.kube.as_ref().ok_or("NODE_NAME is not set")?;
    let kubeconfig = kube.kubeconfig.as_deref();
    let api = KubeApi::new(kubeconfig, kube.node.clone(), Metrics::default()).await;
    api.map_err(|error| error.to_string())
}

impl Node {
    pub(super) async fn said(&self, found: &mut Found) {
        let api = match &self.api {
            Ok(api) => api,
            Err(error) => return found.notes.push(format!("{error}: {UNTOLD}")),
        };
        match in_pods(api).await {
            Ok(pods) if pods.is_empty() => {}
            Ok(pods) => found.things.push(Thing::Said { pods, wait: self.config.withdraw_wait }),
            Err(error) => found.notes.push(format!("{error}: {UNTOLD}")),
        }
        match api.node_is_reported().await {
            Ok(true) => found.things.push(Thing::Condition),
            Ok(false) => {}
            Err(error) => found.notes.push(format!("{error}: the node's condition stays")),
        }
    }

    /// Takes the annotations away and gives peers time to learn it.
    pub(super) async fn withdraw(&self, pods: &[PodFacts]) -> Result<(), String> {
        let withdrawn = withdraw(self.api.as_ref()?, pods).await;
        tokio::time::sleep(self.config.withdraw_wait).await;
        withdrawn.map_err(|error| error.to_string())
    }

    pub(super) async fn forget_node(&self) -> Result<(), String> {
        self.api.as_ref()?.forget_node().await.map_err(|error| error.to_string())
    }
}

/// Pods of the node in which something of us is to be read.
async fn in_pods(api: &KubeApi) -> Result<Vec<PodFacts>, KubeError> {
    let mut pods = api.own_pods().await?;
    pods.retain(|pod| pod.annotations != Annotations::default());
    Ok(pods)
}

/// One that cannot be told does not keep from the others.
async fn withdraw(api: &KubeApi, pods: &[PodFacts]) -> Result<(), KubeError> {
    let mut failure = Ok(());
    for pod in pods {
        match api.annotate(pod, &Annotations::default()).await {
            Ok(()) | Err(KubeError::PodGone(_)) => {}
            Err(error) => failure = Err(error),
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::FakeApi;

    #[tokio::test]
    async fn what_the_api_says_of_us_is_found_and_taken_back() {
        let fake = FakeApi::new();
        for name in ["web", "plain"] {
            fake.add_pod(name, Some("10.9.0.5"));
        }
        let api = fake.client(Metrics::default());
        assert!(in_pods(&api).await.unwrap().is_empty());
        assert!(!api.node_is_reported().await.unwrap(), "nor is there a node");
        fake.add_node(&[]);
        assert!(!api.node_is_reported().await.unwrap());
        let mut pods = api.own_pods().await.unwrap();
        pods.retain(|pod| pod.name.name == "web");
        let said = Annotations { redirection: true, observed: Some("captured".into()) };
        api.annotate(&pods[0], &said).await.unwrap();
        let conditions = json!([{"type": "Ready", "status": "True"},
                                {"type": "SluiceReady", "status": "Unknown"}]);
        fake.patch("/api/v1/nodes/n1", &json!({"status": {"conditions": conditions}}));

        let pods = in_pods(&api).await.unwrap();
        assert_eq!(pods.len(), 1, "the other one has said nothing");
        assert!(api.node_is_reported().await.unwrap());
        withdraw(&api, &pods).await.unwrap();
        assert_eq!(fake.annotation("web", "ambient.istio.io/redirection"), None);
        let asked = fake.requests();
        assert!(asked.iter().any(|it| it.contains("fieldSelector=spec.nodeName")), "{asked:?}");
        fake.set_down(true);
        assert!(in_pods(&api).await.is_err());
    }
}
