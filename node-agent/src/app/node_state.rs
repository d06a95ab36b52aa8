//! Keeps the node's condition in step with what the agent waits for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::config::Config;
use crate::kube::{KubeApi, KubeError, Metrics, NodeState};

/// A sign of life, so that the condition of an agent that was killed gets old.
const SIGN_OF_LIFE: Duration = Duration::from_secs(300);
/// What changes to and fro within this time is not worth telling.
const SETTLE: Duration = Duration::from_secs(1);
/// After a report that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// For the last words of an agent that ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Reports until `stop`, and then that the agent has stopped.
pub(super) async fn report(api: KubeApi, readiness: Readiness, stop: CancellationToken) {
    let telling = async {
        loop {
            tokio::time::sleep(SETTLE).await;
            let waits_for = readiness.waits_for();
            let pause = match api.report_node(&state(&waits_for)).await {
                Ok(()) => SIGN_OF_LIFE,
                Err(error) => {
                    tracing::debug!(%error, "the node's condition is not written");
                    AGAIN
                }
            };
            tokio::select! {
                () = readiness.differs_from(&waits_for) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    };
    let _ = stop.run_until_cancelled(telling).await;
    last_words(api.report_node(&NodeState::Stopped)).await;
}

/// Tells why the agent ends, if anybody can be told.
pub(super) async fn report_failure(config: &Config, error: &anyhow::Error) {
    let failed = NodeState::Failed(format!("{error:#}"));
    let file = config.kubeconfig.as_deref();
    last_words(async {
        let api = KubeApi::new(file, config.node.clone(), Metrics::default()).await?;
        api.report_node(&failed).await
    })
    .await;
}

fn state(waits_for: &[&'static str]) -> NodeState {
    if waits_for.is_empty() { NodeState::Serves } else { NodeState::Waits(waits_for.to_vec()) }
}

async fn last_words(said: impl Future<Output = Result<(), KubeError>>) {
    match tokio::time::timeout(LAST_WORDS, said).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "the node's condition stays as it is"),
        Err(_) => tracing::info!("the node's condition stays as it is: no answer from the API"),
    }
}
