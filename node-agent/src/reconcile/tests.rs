//! Stories of pods, with real namespaces and rules, a ztunnel and an API that do as they
//! are told.

use std::time::{Duration, Instant};

use plugin_api::{Outcome, Verb};

use super::State;
use crate::testing::{FakeApi, FakeZtunnel, Node, PACE, ScratchPod, eventually};

/// A pod that runs outside the mesh.
async fn running(folder: &std::path::Path) -> (Node, FakeApi, FakeZtunnel, ScratchPod) {
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    let node = Node::start(folder, &api).await;
    let ztunnel = node.ztunnel(None).await;
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert!(matches!(outcome, Outcome::NotInMesh { .. }), "{outcome:?}");
    (node, api, ztunnel, pod)
}

fn redirection(api: &FakeApi) -> Option<String> {
    api.annotation("web", "ambient.istio.io/redirection")
}

async fn advertised(api: &FakeApi) {
    eventually("peers are told", || async { redirection(api).as_deref() == Some("enabled") }).await;
}

fn is_redirected(pod: &ScratchPod) -> bool {
    pod.run("nft list ruleset").contains("redirect to :15001")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_brings_a_running_pod_in_and_its_removal_out() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    assert!(ztunnel.serves("uid-web") && is_redirected(&pod));
    assert_eq!(api.annotation("web", "sluice.dev/observed").as_deref(), Some("captured"));

    api.label("web", None);
    eventually("peers are told first", || async { redirection(&api).is_none() }).await;
    assert!(is_redirected(&pod) && ztunnel.serves("uid-web"), "captured until they can know");
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.traces(), "");
    assert_eq!(ztunnel.lines().last().unwrap(), "del uid-web");
    assert_eq!(api.annotation("web", "sluice.dev/observed"), None);
    eventually("people are told", || async { api.events() == ["Captured", "Released"] }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_label_brings_its_pods_in() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, _pod) = running(folder.path()).await;
    let labels =
        serde_json::json!({"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}});
    api.patch("/api/v1/namespaces/shop", &labels);
    advertised(&api).await;
    api.label("web", Some("none"));
    node.reaches("web", State::Outside).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_mind_half_way_out_leads_back_in() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    // A connection of the application keeps the pod draining for a while.
    let (_listener, _app, _accepted) = pod.dial();
    for half_way in [State::Withdrawn, State::Draining] {
        api.label("web", None);
        node.reaches("web", half_way).await;
        assert_eq!(redirection(&api), None);
        api.label("web", Some("ambient"));
        node.reaches("web", State::Captured).await;
        advertised(&api).await;
        assert!(is_redirected(&pod) && ztunnel.serves("uid-web"));
    }
    assert!(!ztunnel.lines().contains(&"del uid-web".to_owned()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_breaks_in_a_pod_is_repaired_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    pod.run("nft flush ruleset");
    eventually("the rules are back", || async { is_redirected(&pod) }).await;
    eventually("it is counted and told", || async {
        node.metric("sluice_agent_drift_repairs_total{kind=\"rules\"} 1")
            && api.events().contains(&"Drifted".to_owned())
    })
    .await;
    assert_eq!(redirection(&api).as_deref(), Some("enabled"), "peers use the tunnel all along");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_its_pods_before_ztunnel_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    node.stop().await;
    assert!(is_redirected(&pod), "rules outlive the agent");
    pod.run("ip rule del pref 13");

    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(ztunnel.lines()[..2], ["add uid-web", "snapshot"]);
    eventually("what broke meanwhile is repaired", || async {
        pod.run("ip rule").contains("lookup 1337")
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_removed_while_the_agent_was_away_counts_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    node.stop().await;
    api.label("web", None);
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.traces(), "");
    assert_eq!(redirection(&api), None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ztunnel_gets_no_snapshot_before_the_api_has_told_the_pods() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, _pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    node.stop().await;

    api.set_down(true);
    let node = Node::start(folder.path(), &api).await;
    let early = FakeZtunnel::connect(&folder.path().join("ztunnel.sock"), None).await;
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        eventually("never", || async { !early.lines().is_empty() }).await;
    });
    assert!(waited.await.is_err(), "an empty snapshot would end all proxies: {:?}", early.lines());
    api.set_down(false);
    eventually("the full snapshot", || async { early.lines() == ["add uid-web", "snapshot"] })
        .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_ztunnel_gets_everything_and_rules_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    drop(ztunnel);
    eventually("it is gone", || async { !node.link.is_live() }).await;
    assert!(is_redirected(&pod), "no ztunnel: refused, not direct");
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(ztunnel.lines()[..2], ["add uid-web", "snapshot"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_pod_hurts_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (api, good, bad) = (FakeApi::new(), ScratchPod::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(Some("uid-bad")).await;
    for (name, pod) in [("bad", &bad), ("good", &good)] {
        api.add_pod(name, Some("10.9.0.5"));
        node.call(Verb::Add, name, pod).await;
    }
    api.label("bad", Some("ambient"));
    api.label("good", Some("ambient"));
    node.reaches("good", State::Captured).await;
    eventually("the other's trouble is told", || async {
        api.events().contains(&"CaptureFailed".to_owned())
    })
    .await;
    assert_eq!(node.state("bad"), Some(State::Outside));
    assert_eq!(bad.traces(), "");
    assert_eq!(api.annotation("bad", "ambient.istio.io/redirection"), None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    api.delete_pod("web");
    eventually("ztunnel lets go", || async { !ztunnel.serves("uid-web") }).await;
    eventually("nothing is known", || async { node.state("web").is_none() }).await;
    let records = std::fs::read_to_string(folder.path().join("pods.json")).unwrap();
    assert!(!records.contains("uid-web"), "{records}");
    assert!(is_redirected(&pod), "its rules end with its namespace");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sandbox_of_the_same_pod_is_captured_and_survives_the_end_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, old) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    let new = ScratchPod::new();
    let mut again = Node::request(Verb::Add, "web", &new);
    again.container_id = "c-again".into();
    assert_eq!(node.send(again, Some(new.netns())).await, Outcome::Captured);
    assert!(is_redirected(&new));
    let served = ztunnel.told.lock().unwrap().serves["uid-web"].id();
    assert_eq!(served, new.netns().id());
    assert_eq!(node.call(Verb::Del, "web", &old).await, Outcome::Done, "late, for the old one");
    assert!(ztunnel.serves("uid-web"));
    assert_eq!(node.state("web"), Some(State::Captured));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_keeps_a_pod_captured_that_wants_out() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    api.label("web", None);
    api.set_down(true);
    eventually("it cannot be withdrawn, or was just before", || async {
        let uid = crate::facts::PodUid("uid-web".into());
        let table = node.reconciler.table();
        let pod = table.get(&uid).unwrap();
        pod.trouble.is_some() || pod.state != State::Captured
    })
    .await;
    if node.state("web") == Some(State::Captured) {
        assert!(is_redirected(&pod));
    }
    api.set_down(false);
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.traces(), "");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_withdrawal_gives_peers_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, _pod) = running(folder.path()).await;
    let mut told = Instant::now();
    for _ in 0..2 {
        api.label("web", Some("ambient"));
        advertised(&api).await;
        eventually("the last withdrawal is long ago", || async {
            told.elapsed() > PACE.withdraw_wait
        })
        .await;
        api.label("web", None);
        eventually("peers are told", || async { redirection(&api).is_none() }).await;
        told = Instant::now();
    }
    node.reaches("web", State::Outside).await;
    assert!(told.elapsed() > PACE.withdraw_wait / 2, "{:?}", told.elapsed());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_repair_is_tried_with_growing_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, _pod) = running(folder.path()).await;
    api.label("web", Some("ambient"));
    advertised(&api).await;
    drop(ztunnel);
    let began = Instant::now();
    let ztunnel = node.ztunnel(Some("uid-web")).await;
    // The snapshot, at once, when the annotation is seen, and after a pause of a second.
    eventually("four attempts", || async {
        let lines = ztunnel.lines();
        lines.iter().filter(|line| *line == "add uid-web").count() >= 4
    })
    .await;
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_started_unseen_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::new();
    api.add_pod("web", Some("10.9.0.5"));
    let node = Node::start(folder.path(), &api).await;
    api.label("web", Some("ambient"));
    eventually("people are told", || async { api.events() == ["CaptureFailed"] }).await;
    assert_eq!(redirection(&api), None);
    // Its next sandbox does not start unseen.
    let (_ztunnel, pod) = (node.ztunnel(None).await, ScratchPod::new());
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    advertised(&api).await;
    node.stop().await;
}
