//! What is done once for all nodes when a chart is removed: the agents stop, and the pods that
//! take everything off their nodes are waited for.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::settings::{KubeApi, ObjectName};

/// For one call.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Why nodes are not left.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// No client.
    #[error(transparent)]
    Client(#[from] super::KubeError),
    /// It took too long, and this was the last that was heard.
    #[error("{step} {name}: not within {} s, {heard}", .patience.as_secs())]
    TooLong {
        /// What was tried.
        step: &'static str,
        /// Of which DaemonSet.
        name: ObjectName,
        /// For how long.
        patience: Duration,
        /// What stood in the way.
        heard: String,
    },
}

/// Removes a DaemonSet and waits until none of its pods is left. One that is not there is gone.
///
/// # Errors
/// [`LeaveError`]; an API that does not answer is asked again until `patience` has ended.
pub async fn remove(
    api: &KubeApi,
    name: &ObjectName,
    patience: Duration,
) -> Result<(), LeaveError> {
    let client = super::client(api).await?;
    let sets = Api::<DaemonSet>::namespaced(client, &name.namespace);
    // It stays until its pods are gone.
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    until(("remove", name), patience, async || {
        let present = asked(sets.get_opt(&name.name)).await?;
        let Some(present) = present else { return Ok(()) };
        if present.metadata.deletion_timestamp.is_none() {
            asked(sets.delete(&name.name, &parameters)).await?;
        }
        let left = present.status.map_or(0, |status| status.current_number_scheduled);
        Err(format!("{left} of its pods are still there"))
    })
    .await
}

/// Waits until the pods of a DaemonSet are ready on all nodes where they should be.
///
/// # Errors
/// [`LeaveError`], which names the nodes where they are not, and why as far as pods say it.
pub async fn ready_everywhere(
    api: &KubeApi,
    name: &ObjectName,
    patience: Duration,
) -> Result<(), LeaveError> {
    let client = super::client(api).await?;
    let sets = Api::<DaemonSet>::namespaced(client.clone(), &name.namespace);
    until(("wait for", name), patience, async || {
        let Some(set) = asked(sets.get_opt(&name.name)).await? else {
            return Err("it is not there".to_owned());
        };
        let status = set.status.clone().unwrap_or_default();
        if is_ready(set.metadata.generation, &status) {
            return Ok(());
        }
        let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
        let nodes = unready_nodes(client.clone(), &set).await.unwrap_or_default();
        Err(format!("ready on {ready} of {wanted} nodes, not on: {}", nodes.join(", ")))
    })
    .await
}

/// What stands there must be about the set as it is now.
fn is_ready(generation: Option<i64>, status: &DaemonSetStatus) -> bool {
    status.observed_generation >= generation
        && status.observed_generation.is_some()
        && status.number_ready >= status.desired_number_scheduled
}

/// Nodes of its pods that are not ready, and what these said last.
async fn unready_nodes(client: Client, set: &DaemonSet) -> Result<Vec<String>, String> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let labels = set.spec.selector.match_labels.as_ref();
    let selector: Vec<_> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = Api::<Pod>::namespaced(client, namespace);
    let parameters = ListParams::default().labels(&selector.join(","));
    let pods = asked(pods.list(&parameters)).await?;
    Ok(pods.items.iter().filter(|pod| !is_up(pod)).filter_map(trouble).collect())
}

/// The node of a pod, with the last words of what failed there before its containers start.
fn trouble(pod: &Pod) -> Option<String> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let steps = pod.status.iter().filter_map(|status| status.init_container_statuses.as_ref());
    let ends = steps.flatten().flat_map(|step| [step.state.as_ref(), step.last_state.as_ref()]);
    let words = ends.flatten().find_map(|state| {
        let end = state.terminated.as_ref().filter(|end| end.exit_code != 0)?;
        Some(end.message.as_deref()?.trim().lines().next_back()?.to_owned())
    });
    Some(words.map_or(node.clone(), |words| format!("{node} ({words})")))
}

fn is_up(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Tries again until it is so; says what stands in the way whenever that changes.
async fn until(
    (step, name): (&'static str, &ObjectName),
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), LeaveError> {
    let (begun, mut told) = (Instant::now(), String::new());
    loop {
        let Err(heard) = attempt().await else { return Ok(()) };
        if begun.elapsed() >= patience {
            return Err(LeaveError::TooLong { step, name: name.clone(), patience, heard });
        }
        if heard != told {
            tracing::info!(daemon_set = %name, "{heard}");
            told = heard;
        }
        sleep(LOOK).await;
    }
}

async fn asked<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| format!("the Kubernetes API: {error}")),
        Err(_) => Err("the Kubernetes API does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_is_said_of_the_present_generation() {
        let status = |observed, ready, wanted| DaemonSetStatus {
            observed_generation: observed,
            number_ready: ready,
            desired_number_scheduled: wanted,
            ..DaemonSetStatus::default()
        };
        assert!(is_ready(Some(1), &status(Some(1), 3, 3)));
        assert!(is_ready(Some(1), &status(Some(1), 0, 0)), "a cluster without nodes");
        assert!(!is_ready(Some(1), &status(None, 0, 0)), "nobody has looked at it yet");
        assert!(!is_ready(Some(2), &status(Some(1), 3, 3)), "an earlier one was ready");
        assert!(!is_ready(Some(1), &status(Some(1), 2, 3)));
    }

    #[test]
    fn a_node_is_named_with_what_failed_there_last() {
        let pod = |steps: serde_json::Value| -> Pod {
            let status = serde_json::json!({ "initContainerStatuses": steps });
            let spec = serde_json::json!({ "nodeName": "n1", "containers": [] });
            let pod = serde_json::json!({ "spec": spec, "status": status });
            serde_json::from_value(pod).unwrap()
        };
        let step = |state: serde_json::Value| {
            let name = serde_json::json!("uninstall");
            serde_json::json!([{
                "name": name, "ready": false, "restartCount": 1, "image": "", "imageID": "",
                "state": { "running": {} }, "lastState": { "terminated": state },
            }])
        };
        let failed = serde_json::json!({ "exitCode": 1, "message": "one\nsomething is left\n" });
        assert_eq!(trouble(&pod(step(failed))).unwrap(), "n1 (something is left)");
        let ended = serde_json::json!({ "exitCode": 0, "message": "all is gone" });
        assert_eq!(trouble(&pod(step(ended))).unwrap(), "n1");
        assert_eq!(trouble(&pod(serde_json::json!([]))).unwrap(), "n1");
        assert_eq!(trouble(&Pod::default()), None, "it has no node yet");
    }

    #[test]
    fn a_pod_is_up_when_it_says_so() {
        let pod = |status: &str| -> Pod {
            let conditions = serde_json::json!([{ "type": "Ready", "status": status }]);
            serde_json::from_value(serde_json::json!({ "status": { "conditions": conditions } }))
                .unwrap()
        };
        assert!(is_up(&pod("True")));
        assert!(!is_up(&pod("False")));
        assert!(!is_up(&Pod::default()));
    }
}
