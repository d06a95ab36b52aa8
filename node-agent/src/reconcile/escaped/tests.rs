use serde_json::json;

use super::*;
use crate::install::Stands;
use crate::reconcile::{Pace, State};
use crate::testing::{FakeApi, FakeRuntime, FakeZtunnel, Node, PACE, ScratchPod, eventually};

const EVICT: Pace = Pace { on_escaped: OnEscaped::Evict, ..PACE };
const WEB: &str = "/api/v1/namespaces/shop/pods/web";

fn in_place(excluded: &[&str]) -> Stands {
    Stands::InPlace { excluded: excluded.iter().map(ToString::to_string).collect() }
}

/// A node on which `shop/web` runs that nobody has told about.
struct Scene {
    folder: tempfile::TempDir,
    api: FakeApi,
    pod: ScratchPod,
    runtime: FakeRuntime,
}

impl Scene {
    fn new(mode: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (api, pod) = (FakeApi::new(), ScratchPod::new());
        let runtime = FakeRuntime::at(&folder.path().join("cri.sock"));
        runtime.run("uid-web", "c-web", 1, &pod.path());
        api.add_pod_as("web", "uid-web", Some("10.9.0.5"), mode);
        Self { folder, api, pod, runtime }
    }

    /// As by a Deployment.
    fn with_controller(self) -> Self {
        let owner = json!({"kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true,
                           "apiVersion": "apps/v1"});
        self.api.patch(WEB, &json!({"metadata": {"ownerReferences": [owner]}}));
        self
    }

    /// An agent that has seen its plugin in the runtime's configuration.
    async fn node(&self, pace: Pace) -> (Node, FakeZtunnel) {
        self.node_where(pace, in_place(&[])).await
    }

    async fn node_where(&self, pace: Pace, stands: Stands) -> (Node, FakeZtunnel) {
        let node = Node::start_at(self.folder.path(), &self.api, pace).await;
        node.standing.see(stands);
        let ztunnel = node.ztunnel(None).await;
        (node, ztunnel)
    }

    fn is_redirected(&self) -> bool {
        self.pod.run("nft list ruleset").contains("redirect to :15001")
    }

    fn asked(&self) -> usize {
        self.api.requests().iter().filter(|it| it.contains("/eviction")).count()
    }

    async fn told(&self, reason: &str) {
        eventually(reason, || async { self.api.events().iter().any(|it| it == reason) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escaped_pod_is_captured_and_evicted() {
    let scene = Scene::new(Some("ambient")).with_controller();
    // Its budget allows it at the third attempt.
    scene.api.block_evictions(2);
    let (node, _ztunnel) = scene.node(EVICT).await;
    node.reaches("web", State::Captured).await;
    assert!(scene.is_redirected(), "it waits for nothing to be captured");
    scene.told("StartedUnseen").await;
    scene.told("EvictionDelayed").await;
    scene.told("Evicted").await;
    assert_eq!(scene.asked(), 3);
    assert!(scene.api.messages("EvictionDelayed")[0].contains("disruption budget"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escaped_pod_is_not_evicted_before_the_plugin_is_called() {
    let scene = Scene::new(Some("ambient")).with_controller();
    let not = Stands::Not("network configuration 10-x.conflist is without our plugin".into());
    let (node, _ztunnel) = scene.node_where(EVICT, not).await;
    node.reaches("web", State::Captured).await;
    scene.told("EvictionDelayed").await;
    assert_eq!(scene.asked(), 0);
    assert!(scene.api.messages("EvictionDelayed")[0].contains("10-x.conflist is without"));
    node.standing.see(in_place(&[]));
    scene.told("Evicted").await;
    assert_eq!(scene.asked(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_namespace_that_starts_without_the_plugin_is_not_evicted() {
    let scene = Scene::new(Some("ambient")).with_controller();
    let (node, _ztunnel) = scene.node_where(EVICT, in_place(&["shop"])).await;
    node.reaches("web", State::Captured).await;
    scene.told("NotEvicted").await;
    assert!(scene.api.messages("NotEvicted")[0].contains("excludes its namespace"));
    assert_eq!(scene.asked(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_an_evicted_pods_place_and_escapes_as_well_is_left_in_place() {
    let scene = Scene::new(Some("ambient")).with_controller();
    let (node, _ztunnel) = scene.node(EVICT).await;
    scene.told("Evicted").await;
    // Its Deployment makes another one, of which the plugin tells nothing either.
    let next = ScratchPod::new();
    scene.runtime.run("uid-next", "c-next", 1, &next.path());
    scene.api.add_pod_as("next", "uid-next", Some("10.9.0.5"), Some("ambient"));
    let owner = json!({"kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true,
                       "apiVersion": "apps/v1"});
    let owned = json!({"metadata": {"ownerReferences": [owner]}});
    scene.api.patch("/api/v1/namespaces/shop/pods/next", &owned);
    node.reaches("next", State::Captured).await;
    scene.told("NotEvicted").await;
    assert!(scene.api.messages("NotEvicted")[0].contains("does not call our plugin"));
    assert_eq!(scene.asked(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_an_escaped_pod_is_captured_in_place() {
    let scene = Scene::new(Some("ambient")).with_controller();
    let (node, _ztunnel) = scene.node(PACE).await;
    node.reaches("web", State::Captured).await;
    scene.told("Captured").await;
    assert_eq!(scene.asked(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_joins_by_a_label_has_not_escaped() {
    let scene = Scene::new(None).with_controller();
    let (node, _ztunnel) = scene.node(EVICT).await;
    eventually("its choice is known", || async {
        node.reconciler.slot(&PodUid("uid-web".into())).was_outside_by_choice()
    })
    .await;
    scene.api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    scene.told("Captured").await;
    assert_eq!(scene.asked(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_nobody_would_make_again_is_not_evicted() {
    let scene = Scene::new(Some("ambient"));
    let (node, _ztunnel) = scene.node(EVICT).await;
    node.reaches("web", State::Captured).await;
    scene.told("NotEvicted").await;
    assert_eq!(scene.asked(), 0);
    node.stop().await;
}

#[tokio::test]
async fn only_the_pod_that_is_meant_is_evicted() {
    let scene = Scene::new(Some("ambient")).with_controller();
    let client = scene.api.client(crate::kube::Metrics::default());
    let mut other = crate::testing::pod("web");
    other.uid = PodUid("uid-of-an-earlier-web".into());
    assert_eq!(client.evict(&other).await.unwrap(), Eviction::Gone);
    assert_eq!(scene.asked(), 0);
    assert_eq!(client.evict(&crate::testing::pod("web")).await.unwrap(), Eviction::Begun);
    assert_eq!(client.evict(&crate::testing::pod("web")).await.unwrap(), Eviction::Gone);
}
