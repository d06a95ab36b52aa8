//! What the API says of us on this node: what peers and people read in pods, and the node's
//! condition. Where the API cannot be reached that stays, and the rest is done all the same.

use std::time::Duration;

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
        let said = match &self.api {
            Ok(api) => look(api, self.config.withdraw_wait).await.map_err(|it| it.to_string()),
            Err(error) => Err(error.clone()),
        };
        match said {
            Ok(things) => found.things.extend(things),
            Err(error) => found.notes.push(format!("{error}: {UNTOLD}")),
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

async fn look(api: &KubeApi, wait: Duration) -> Result<Vec<Thing>, KubeError> {
    let mut pods = api.own_pods().await?;
    pods.retain(|pod| pod.annotations != Annotations::default());
    let said = (!pods.is_empty()).then_some(Thing::Said { pods, wait });
    let condition = api.node_is_reported().await?.then_some(Thing::Condition);
    Ok(said.into_iter().chain(condition).collect())
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

    const WAIT: Duration = Duration::ZERO;

    #[tokio::test]
    async fn what_the_api_says_of_us_is_found_and_taken_back() {
        let fake = FakeApi::new();
        for name in ["web", "plain"] {
            fake.add_pod(name, Some("10.9.0.5"));
        }
        let api = fake.client(Metrics::default());
        assert!(look(&api, WAIT).await.unwrap().is_empty(), "nor is there a node");
        fake.add_node(&[]);
        assert!(look(&api, WAIT).await.unwrap().is_empty());
        let mut pods = api.own_pods().await.unwrap();
        pods.retain(|pod| pod.name.name == "web");
        let said = Annotations { redirection: true, observed: Some("captured".into()) };
        api.annotate(&pods[0], &said).await.unwrap();
        let conditions = json!([{"type": "Ready", "status": "True"},
                                {"type": "SluiceReady", "status": "Unknown"}]);
        fake.patch("/api/v1/nodes/n1", &json!({"status": {"conditions": conditions}}));

        let things = look(&api, WAIT).await.unwrap();
        let [Thing::Said { pods, .. }, Thing::Condition] = &things[..] else {
            panic!("{things:?}");
        };
        assert_eq!(pods.len(), 1, "the other one has said nothing");
        withdraw(&api, pods).await.unwrap();
        assert_eq!(fake.annotation("web", "ambient.istio.io/redirection"), None);
        let asked = fake.requests();
        assert!(asked.iter().any(|it| it.contains("fieldSelector=spec.nodeName")), "{asked:?}");
        fake.set_down(true);
        assert!(look(&api, WAIT).await.is_err());
    }
}
