//! The steps of a chart's removal that concern all nodes.

use control::{KubeApi as Where, LeaveError, ObjectName, await_daemon_set, remove_daemon_set};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::support::kept::Kept;
use crate::support::kube_api::KubeApi;
use crate::support::{PATIENCE, soon};

const AGENTS: &str = "/apis/apps/v1/namespaces/mesh/daemonsets/agents";
const PODS: &str = "/api/v1/namespaces/mesh/pods";

async fn api() -> (KubeApi, Where, ObjectName) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = KubeApi::start().await;
    let at = Where::Url(api.url());
    (api, at, ObjectName { namespace: "mesh".into(), name: "agents".into() })
}

fn set(ready: u32, wanted: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": "agents", "namespace": "mesh", "generation": 1 },
        "spec": {
            "selector": { "matchLabels": { "app": "agents" } },
            "template": { "metadata": { "labels": { "app": "agents" } } },
        },
        "status": {
            "observedGeneration": 1, "numberReady": ready, "desiredNumberScheduled": wanted,
            "currentNumberScheduled": wanted, "numberMisscheduled": 0,
        },
    })
}

fn pod(node: &str, ready: &str) -> Value {
    json!({
        "metadata": { "name": format!("agents-{node}") },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

async fn until(api: &KubeApi, is_so: impl Fn(&Kept) -> bool) {
    let looking = async {
        while !api.kept(|kept| is_so(kept)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("what the API is asked", looking).await;
}

#[tokio::test]
async fn a_daemon_set_is_gone_when_its_pods_are() {
    let (api, at, name) = api().await;
    api.kept(|kept| kept.objects.insert(AGENTS.into(), set(2, 2)));
    let removing = remove_daemon_set(&at, &name, PATIENCE);
    let collecting = async {
        until(&api, |kept| kept.calls.iter().any(|call| call.starts_with("DELETE"))).await;
        let how = api.kept(|kept| kept.objects[AGENTS]["deletedBy"]["propagationPolicy"].clone());
        assert_eq!(how, "Foreground", "it must stay as long as its pods");
        let looks = api.kept(|kept| kept.calls.len());
        until(&api, |kept| kept.calls.len() > looks).await;
        api.kept(|kept| kept.objects.remove(AGENTS));
    };
    let (removed, ()) = tokio::join!(soon("the end", removing), collecting);
    removed.unwrap();
    assert!(api.kept(|kept| kept.objects.is_empty()), "it has waited for the end");
    let deletions =
        api.kept(|kept| kept.calls.iter().filter(|call| call.starts_with("DELETE")).count());
    assert_eq!(deletions, 1);
}

#[tokio::test]
async fn one_that_is_not_there_is_gone_also_when_the_api_stumbles() {
    let (api, at, name) = api().await;
    api.kept(|kept| kept.troubles = vec![500]);
    Box::pin(soon("the end", remove_daemon_set(&at, &name, PATIENCE))).await.unwrap();
}

#[tokio::test]
async fn what_is_ready_everywhere_is_waited_for() {
    let (api, at, name) = api().await;
    api.kept(|kept| kept.objects.insert(AGENTS.into(), set(1, 2)));
    let waiting = await_daemon_set(&at, &name, PATIENCE);
    let starting = async {
        until(&api, |kept| !kept.calls.is_empty()).await;
        api.kept(|kept| kept.objects.insert(AGENTS.into(), set(2, 2)));
    };
    let (ready, _) = tokio::join!(soon("the end", waiting), starting);
    ready.unwrap();
    assert_eq!(api.kept(|kept| kept.objects[AGENTS]["status"]["numberReady"].clone()), 2);
}

#[tokio::test]
async fn the_nodes_that_are_not_ready_are_named() {
    let (api, at, name) = api().await;
    let pods = json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {},
        "items": [pod("n1", "True"), pod("n2", "False")],
    });
    api.kept(|kept| {
        kept.objects.insert(AGENTS.into(), set(1, 2));
        kept.objects.insert(PODS.into(), pods);
    });
    let error = await_daemon_set(&at, &name, Duration::ZERO).await.unwrap_err();
    let LeaveError::TooLong { heard, .. } = &error else { panic!("{error}") };
    assert_eq!(heard, "ready on 1 of 2 nodes, not on: n2");
    assert!(error.to_string().starts_with("wait for mesh/agents: not within 0 s"), "{error}");
}
