//! Stories of pods that the kubelet probes.

use plugin_api::{Outcome, Verb};
use serde_json::json;

use super::State;
use crate::testing::{FakeApi, Node, ScratchPod, eventually};

/// A pod of the API with an HTTP probe at a named port.
fn probed(api: &FakeApi, name: &str) {
    api.add_silently(name, Some("ambient"));
    let container = json!({
        "name": "app",
        "ports": [{"name": "health", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/", "port": "health"}},
    });
    api.patch(
        &format!("/api/v1/namespaces/shop/pods/{name}"),
        &json!({"spec": {"containers": [container]}}),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_pass_from_the_answer_of_add_to_the_end_of_the_pod() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    probed(&api, "web");
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    assert_eq!(node.host.in_kernel().await, [(pod.ip, 8080)].into());
    let set = pod.run("nft list set inet sluice probe4");
    assert!(set.contains("169.254.7.127 . 8080"), "{set}");
    node.call(Verb::Del, "web", &pod).await;
    eventually("the exemption is gone", || async { node.host.in_kernel().await.is_empty() }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_pod_is_like_any_other_to_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    probed(&api, "web");
    node.call(Verb::Add, "web", &pod).await;
    api.label("web", None);
    node.reaches("web", State::Outside).await;
    eventually("the exemption is gone", || async { node.host.in_kernel().await.is_empty() }).await;
    api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    assert_eq!(node.host.in_kernel().await, [(pod.ip, 8080)].into());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_follow_the_addresses_that_probes_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    probed(&api, "web");
    node.call(Verb::Add, "web", &pod).await;
    node.reconciler.probe_from(&["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into());
    for (set, element) in [("probe4", "10.0.0.1 . 8080"), ("probe6", "fd00::1 . 8080")] {
        let command = format!("nft list set inet sluice {set}");
        eventually(element, || async { pod.run(&command).contains(element) }).await;
        assert!(!pod.run(&command).contains("169.254"));
    }
    node.stop().await;
}
