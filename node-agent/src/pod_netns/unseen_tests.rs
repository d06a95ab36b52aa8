//! Pods that the plugin did not see start, or of which the agent has lost the record.

use plugin_api::{Outcome, Verb};

use crate::reconcile::State;
use crate::testing::{FakeApi, FakeRuntime, FakeZtunnel, Node, ScratchPod, eventually};

fn is_redirected(pod: &ScratchPod) -> bool {
    pod.run("nft list ruleset").contains("redirect to :15001")
}

async fn captured(node: &Node, api: &FakeApi) {
    node.reaches("web", State::Captured).await;
    eventually("peers are told", || async {
        api.annotation("web", "ambient.istio.io/redirection").as_deref() == Some("enabled")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_started_unseen_is_found_through_the_runtime_and_captured() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    let runtime = FakeRuntime::at(&folder.path().join("cri.sock"));
    runtime.run("uid-web", "c-web", 1, &pod.path());
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    captured(&node, &api).await;
    assert!(is_redirected(&pod));
    eventually("people are told", || async {
        let events = api.events();
        ["StartedUnseen", "Captured"].iter().all(|event| events.iter().any(|e| e == event))
    })
    .await;

    // The runtime ends the sandbox that it told of.
    assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
    eventually("ztunnel lets go", || async { !ztunnel.serves("uid-web") }).await;
    node.stop().await;
}

/// A captured pod, and an agent that has ended and lost what it had written down.
async fn forgetful(folder: &std::path::Path, pod: &ScratchPod) -> FakeApi {
    let api = FakeApi::new();
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start(folder, &api).await;
    let _ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", pod).await, Outcome::Captured);
    captured(&node, &api).await;
    node.stop().await;
    std::fs::remove_file(folder.join("pods.json")).unwrap();
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_no_gap_in_the_snapshot() {
    let (folder, pod) = (tempfile::tempdir().unwrap(), ScratchPod::new());
    let api = forgetful(folder.path(), &pod).await;
    let runtime = FakeRuntime::at(&folder.path().join("cri.sock"));
    runtime.run("uid-web", "c-web", 1, &pod.path());
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(ztunnel.lines()[..2], ["add uid-web", "snapshot"]);
    node.reaches("web", State::Captured).await;
    assert!(!api.events().contains(&"StartedUnseen".to_owned()), "it was captured all along");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_pod_that_nothing_leads_to_is_kept_by_ztunnel() {
    let (folder, pod) = (tempfile::tempdir().unwrap(), ScratchPod::new());
    let api = forgetful(folder.path(), &pod).await;
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(ztunnel.lines()[..2], ["keep uid-web", "snapshot"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_label_and_record_went_while_the_agent_was_away_is_released() {
    let (folder, pod) = (tempfile::tempdir().unwrap(), ScratchPod::new());
    let api = forgetful(folder.path(), &pod).await;
    api.label("web", None);
    let runtime = FakeRuntime::at(&folder.path().join("cri.sock"));
    runtime.run("uid-web", "c-web", 1, &pod.path());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel: FakeZtunnel = node.ztunnel(None).await;
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.traces(), "");
    node.stop().await;
}
