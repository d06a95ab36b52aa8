//! Stories of captured pods in which somebody breaks something while others are waited for:
//! ztunnel, the API, a crowd of other pods.

use super::*;

/// Whether a ztunnel that says nothing since it was asked may have been given up: only a machine
/// that is very slow gets there.
fn is_given_up(asked: Instant) -> bool {
    asked.elapsed() > Duration::from_secs(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ztunnel_that_refuses_the_pod_does_not_keep_its_rules_from_being_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    web.ztunnel.told.lock().unwrap().refuses = true;
    let told = Arc::new(Mutex::new(Told { refuses: true, ..Told::default() }));
    let _next = web.node.taking_ztunnel(told).await;
    for times in 1..=3 {
        web.pod.run("nft flush ruleset");
        web.repaired("rules", times).await;
    }
    assert!(web.is_whole());
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_options_that_wait_for_a_ztunnel_do_not_keep_the_rules_from_being_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let Captured { node, api, ztunnel, pod } = captured(folder.path(), DEAF).await;
    drop(ztunnel);
    eventually("no ztunnel is connected", || async { !node.is_live() }).await;
    api.annotate("web", "sluice.dev/exclude-outbound-ports", "5432");
    let failed = "sluice_agent_reconcile_failures_total{type=\"repair\"}";
    eventually("they wait for a ztunnel", || async { node.metric_value(failed) >= 1.0 }).await;
    for _ in 0..2 {
        pod.run("nft flush ruleset");
        eventually("the rules are back", || async { is_redirected(&pod) }).await;
    }
    let _next = node.taking_ztunnel(Arc::new(Mutex::new(Told::default()))).await;
    eventually("the options count", || async {
        pod.run("nft list set inet sluice out_skip").contains("5432")
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ztunnel_that_takes_its_time_does_not_keep_the_rules_from_being_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start_at(folder.path(), &api, DEAF).await;
    let binds_itself = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    drop(binds_itself);
    eventually("no ztunnel is connected", || async { !node.is_live() }).await;
    let next = node.taking_ztunnel(Arc::default()).await;
    // The agent opens listeners for it as soon as it looks at the pod.
    next.told.lock().unwrap().is_silent = true;
    let before = next.lines().len();
    api.annotate("web", "sluice.dev/older-connections", "reset");
    eventually("it is asked", || async { next.lines().len() > before }).await;
    let asked = Instant::now();
    pod.run("nft flush ruleset");
    eventually("the rules are back", || async { is_redirected(&pod) }).await;
    assert!(
        node.is_live() || is_given_up(asked),
        "it has not answered, and nobody has given it up"
    );
    next.told.lock().unwrap().is_silent = false;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_options_that_a_ztunnel_takes_its_time_for_do_not_leave_the_pod_open() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    web.ztunnel.told.lock().unwrap().is_silent = true;
    let before = web.ztunnel.lines().len();
    web.api.annotate("web", "ambient.istio.io/dns-capture", "true");
    eventually("it is asked for a name server", || async { web.ztunnel.lines().len() > before })
        .await;
    let asked = Instant::now();
    for _ in 0..2 {
        web.pod.run("nft flush ruleset");
        eventually("the rules are back", || async { web.is_whole() }).await;
        assert!(
            web.node.is_live() || is_given_up(asked),
            "it has not answered, and nobody has given it up"
        );
    }
    assert!(!web.pod.run("nft list ruleset").contains("redirect to :15053"));
    web.ztunnel.told.lock().unwrap().is_silent = false;
    eventually("the options count", || async {
        web.pod.run("nft list ruleset").contains("redirect to :15053")
    })
    .await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_waits_for_its_turn_among_others_is_not_left_open() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    let limit = &web.node.reconciler.inner.limit;
    let others = limit.acquire_many(limit.available_permits().try_into().unwrap()).await.unwrap();
    web.api.annotate("web", "sluice.dev/exclude-outbound-ports", "5432");
    let repairs = "nodeagent_reconcile_events_total{type=\"repair\"}";
    eventually("it waits for its turn", || async { web.node.metric_value(repairs) >= 1.0 }).await;
    for _ in 0..3 {
        web.pod.run("nft flush ruleset");
        eventually("the rules are back", || async { web.is_whole() }).await;
    }
    assert!(!web.pod.run("nft list set inet sluice out_skip").contains("5432"));
    drop(others);
    eventually("the options count", || async {
        web.pod.run("nft list set inet sluice out_skip").contains("5432")
    })
    .await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_keeps_no_rules_from_being_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    web.api.label("web", None);
    web.api.set_down(true);
    for _ in 0..2 {
        web.pod.run("nft flush ruleset");
        eventually("it is repaired, or was released just before", || async {
            is_redirected(&web.pod) || web.node.state("web") != Some(State::Captured)
        })
        .await;
    }
    web.api.set_down(false);
    web.node.reaches("web", State::Outside).await;
    assert_eq!(web.pod.traces(), "");
    web.node.stop().await;
}
