//! Stories of pods that are on their way out of the mesh when somebody breaks something.

use std::io::{Read, Write};

use super::*;

/// Nobody is waited for in vain, and nothing happens by itself.
const SLOW: Pace = Pace { withdraw_wait: HOUR, drain_deadline: HOUR, ..DEAF };

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_which_peers_still_believe_that_it_is_captured_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), SLOW).await;
    web.api.label("web", None);
    web.node.reaches("web", State::Withdrawn).await;
    for damage in ["nft flush ruleset", "ip rule del pref 13", "nft flush ruleset"] {
        web.pod.run(damage);
        eventually("it is put right", || async { web.is_whole() }).await;
    }
    // One that is undone before it was looked at counts together with the next.
    let repairs = "sluice_agent_drift_repairs_total{kind=\"rules\"}";
    eventually("it is counted", || async { web.node.metric_value(repairs) >= 1.0 }).await;
    assert_eq!(web.node.state("web"), Some(State::Withdrawn), "it is no less on its way out");
    assert_eq!(web.api.annotation("web", "ambient.istio.io/redirection"), None);
    assert_eq!(web.observed(), None, "people are told by Events");
    eventually("people are told", || async { web.count("Drifted") >= 1 }).await;
    web.api.label("web", Some("ambient"));
    web.node.reaches("web", State::Captured).await;
    web.says("captured").await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_draining_pod_stay_proxied_whatever_somebody_removes() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let pace = Pace { drain_deadline: HOUR, ..DEAF };
    let node = Node::start_at(folder.path(), &api, pace).await;
    let _ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    let (_listener, mut app, mut ztunnel) = pod.dial();
    let (mut client, mut server) = pod.dial_as_ztunnel();
    api.label("web", None);
    node.reaches("web", State::Draining).await;
    for damage in ["nft flush ruleset", "nft delete table inet sluice", "ip rule del pref 13"] {
        pod.run(damage);
        eventually(&format!("it is undone: {damage}"), || async {
            pod.run("nft list ruleset").contains("chain mark_out")
                && pod.run("ip rule").contains("lookup 1337")
        })
        .await;
        for (near, far) in [(&mut app, &mut ztunnel), (&mut client, &mut server)] {
            near.write_all(b"?").unwrap();
            far.set_read_timeout(Some(crate::testing::PATIENCE)).unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    }
    assert!(!is_redirected(&pod), "new connections are direct");
    assert_eq!(node.state("web"), Some(State::Draining));
    assert!(node.metric_value("sluice_agent_drift_repairs_total{kind=\"rules\"}") >= 1.0);
    drop((app, ztunnel, client, server));
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.traces(), "");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_be_put_right_is_closed_and_leaves_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), PACE).await;
    // The route of marked packets goes with it, and cannot come back.
    web.pod.run("ip link set lo down");
    web.pod.run("nft flush ruleset");
    eventually("the rules are back", || async { is_redirected(&web.pod) }).await;
    let failed = "sluice_agent_reconcile_failures_total{type=\"verify\"}";
    eventually("it is tried again and again", || async { web.node.metric_value(failed) >= 3.0 })
        .await;
    web.api.label("web", None);
    web.node.reaches("web", State::Outside).await;
    assert!(!is_redirected(&web.pod));
    web.node.stop().await;
}
