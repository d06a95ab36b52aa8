//! Tells peers that the node's pods leave the mesh, where anybody can be told: without the
//! API, the pods leave all the same.

use super::report::Report;
use super::{Kube, Node, UninstallError};
use crate::facts::Annotations;
use crate::kube::{KubeApi, KubeError, Metrics};

impl Node {
    /// Takes the annotations of the node's pods away and gives peers time to learn it.
    pub(super) async fn withdraw(&self, report: &mut Report) -> Result<(), UninstallError> {
        let Some(kube) = &self.config.kube else {
            report.note(
                "NODE_NAME is not set: peers are not told, and use the tunnel to pods of this \
                 node until they restart or lose the annotation ambient.istio.io/redirection",
            )?;
            return Ok(());
        };
        match withdraw(kube).await {
            Ok(0) => {}
            Ok(told) => {
                let wait = self.config.withdraw_wait;
                report.line(&format!("tell the peers of {told} pods, wait {wait:?}"))?;
                tokio::time::sleep(wait).await;
            }
            Err(error) => report.note(&format!(
                "peers are not told: {error}; they use the tunnel to pods of this node until \
                 those restart or lose the annotation ambient.istio.io/redirection"
            ))?,
        }
        Ok(())
    }
}

/// How many pods had said that they are captured.
async fn withdraw(kube: &Kube) -> Result<usize, KubeError> {
    let kubeconfig = kube.kubeconfig.as_deref();
    let api = KubeApi::new(kubeconfig, kube.node.clone(), Metrics::default()).await?;
    withdraw_through(&api).await
}

/// One that cannot be told does not keep from the others.
async fn withdraw_through(api: &KubeApi) -> Result<usize, KubeError> {
    let (mut told, mut failure) = (0, None);
    for pod in api.own_pods().await? {
        if pod.annotations == Annotations::default() {
            continue;
        }
        match api.annotate(&pod, &Annotations::default()).await {
            Ok(()) => told += 1,
            Err(KubeError::PodGone(_)) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(told), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    #[tokio::test]
    async fn pods_that_said_that_they_are_captured_say_it_no_more() {
        let fake = FakeApi::new();
        for name in ["web", "plain"] {
            fake.add_pod(name, Some("10.9.0.5"));
        }
        let api = fake.client(Metrics::default());
        let web = api.own_pods().await.unwrap().into_iter().find(|pod| pod.name.name == "web");
        let said = Annotations { redirection: true, observed: Some("captured".into()) };
        api.annotate(&web.unwrap(), &said).await.unwrap();

        assert_eq!(withdraw_through(&api).await.unwrap(), 1);
        assert_eq!(fake.annotation("web", "ambient.istio.io/redirection"), None);
        assert_eq!(withdraw_through(&api).await.unwrap(), 0);
        assert!(
            fake.requests().iter().any(|it| it.contains("spec.nodeName")),
            "{:?}",
            fake.requests()
        );
        fake.set_down(true);
        assert!(withdraw_through(&api).await.is_err());
    }
}
