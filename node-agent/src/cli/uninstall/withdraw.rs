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
            Ok(_) => tokio::time::sleep(self.config.withdraw_wait).await,
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
    let mut told = 0;
    for pod in api.own_pods().await? {
        if pod.annotations == Annotations::default() {
            continue;
        }
        match api.annotate(&pod, &Annotations::default()).await {
            Ok(()) | Err(KubeError::PodGone(_)) => told += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}
