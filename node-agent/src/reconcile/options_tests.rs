//! Stories of pods whose owners want something special.

use std::io::{Read, Write};
use std::net::TcpStream;

use plugin_api::Verb;

use crate::rules::Programs;
use crate::testing::{FakeApi, FakeZtunnel, Node, PACE, ScratchPod, eventually, programs};

const OUTBOUND_PORTS: &str = "sluice.dev/exclude-outbound-ports";

/// A pod that is in the mesh.
async fn captured(folder: &std::path::Path) -> (Node, FakeApi, FakeZtunnel, ScratchPod) {
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    let node = Node::start(folder, &api).await;
    let ztunnel = node.ztunnel(None).await;
    node.call(Verb::Add, "web", &pod).await;
    api.label("web", Some("ambient"));
    node.reaches("web", super::State::Captured).await;
    (node, api, ztunnel, pod)
}

async fn holds(pod: &ScratchPod, set: &str, element: &str) {
    let command = format!("nft list set inet sluice {set}");
    eventually(&format!("{set} has {element}"), || async { pod.run(&command).contains(element) })
        .await;
}

fn echo(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"?").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"!").unwrap();
    near.read_exact(&mut [0]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_port_reaches_the_kernel_and_a_mistake_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    let (_listener, mut app, mut accepted) = pod.dial();
    api.annotate("web", OUTBOUND_PORTS, "5432,8000-8010");
    holds(&pod, "out_skip", "5432, 8000-8010").await;
    echo(&mut app, &mut accepted);

    for mistake in ["5432,http", "15008"] {
        api.annotate("web", OUTBOUND_PORTS, mistake);
        let told =
            || api.messages("BadOption").iter().any(|text| text.contains(&format!("={mistake:?}")));
        eventually("people are told", || async { told() }).await;
    }
    let messages = api.messages("BadOption");
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[1].contains("15008 is a port of the mesh itself"), "{messages:?}");
    assert!(messages[1].contains("what it said before still counts"), "{messages:?}");
    // Looked at again, and again.
    node.looks_again("web").await;
    assert_eq!(api.messages("BadOption").len(), 2);
    holds(&pod, "out_skip", "5432, 8000-8010").await;

    api.unannotate("web", OUTBOUND_PORTS);
    let set = "nft list set inet sluice out_skip";
    eventually("captured again", || async { !pod.run(set).contains("elements") }).await;
    echo(&mut app, &mut accepted);
    assert!(!api.events().contains(&"Drifted".to_owned()), "a wish is no drift");
    node.stop().await;
}

const OLDER: &str = "sluice.dev/older-connections";

/// A pod outside of the mesh with a connection to another one: the node, and both ends.
struct Old {
    node: Node,
    api: FakeApi,
    ztunnel: FakeZtunnel,
    pod: ScratchPod,
    app: TcpStream,
    server: TcpStream,
}

impl Old {
    async fn new(folder: &std::path::Path) -> Self {
        let (api, pod) = (FakeApi::new(), ScratchPod::new());
        api.add_pod("web", Some("10.9.0.5"));
        let node = Node::start(folder, &api).await;
        let ztunnel = node.ztunnel(None).await;
        node.call(Verb::Add, "web", &pod).await;
        let (app, server) = pod.dial_elsewhere();
        Self { node, api, ztunnel, pod, app, server }
    }

    async fn captured(&self) {
        self.api.label("web", Some("ambient"));
        self.node.reaches("web", super::State::Captured).await;
    }

    /// Both ends hear of the end.
    async fn ends(&mut self) {
        let ended = "sluice_agent_older_connections_ended_total 1";
        eventually("it is ended", || async { self.node.metric(ended) }).await;
        self.server.set_read_timeout(Some(crate::testing::PATIENCE)).unwrap();
        let kinds =
            [&mut self.app, &mut self.server].map(|end| end.read(&mut [0]).unwrap_err().kind());
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
        assert_eq!(kinds, [ConnectionAborted, ConnectionReset]);
        let told = || !self.api.messages("OlderConnectionsEnded").is_empty();
        eventually("people are told", || async { told() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_connections_are_kept_unless_the_pod_says_otherwise_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Old::new(folder.path()).await;
    let (mut near, mut far) = old.pod.dial_itself();
    old.captured().await;
    old.node.looks_again("web").await;
    echo(&mut old.app, &mut old.server);

    // Also a later life of the agent knows that they are older.
    old.node.stop().await;
    old.node = Node::start(folder.path(), &old.api).await;
    old.ztunnel = old.node.ztunnel(None).await;
    old.node.looks_again("web").await;
    echo(&mut old.app, &mut old.server);

    old.api.annotate("web", OLDER, "reset");
    old.ends().await;
    echo(&mut near, &mut far);
    old.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_connections_are_ended_and_proxied_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Old::new(folder.path()).await;
    let (mut near, mut far) = old.pod.dial_itself();
    old.api.annotate("web", OLDER, "keep-for=2s");
    old.captured().await;
    let (mut app, mut ztunnel) = old.pod.dial_captured();
    echo(&mut old.app, &mut old.server);
    old.ends().await;
    old.node.looks_again("web").await;
    echo(&mut near, &mut far);
    echo(&mut app, &mut ztunnel);
    old.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_excluded_is_older_than_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Old::new(folder.path()).await;
    old.api.annotate("web", OLDER, "reset");
    old.api.annotate("web", OUTBOUND_PORTS, "80");
    old.captured().await;
    old.node.looks_again("web").await;
    echo(&mut old.app, &mut old.server);
    old.api.unannotate("web", OUTBOUND_PORTS);
    old.ends().await;
    old.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_connections_that_cannot_be_ended_keep_nothing_else_from_being_done() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.annotate("web", OLDER, "reset");
    let programs = Programs { ss: folder.path().join("ss"), ..programs() };
    let node = Node::start_with(folder.path(), &api, PACE, programs).await;
    let _ztunnel = node.ztunnel(None).await;
    node.call(Verb::Add, "web", &pod).await;
    let failures =
        || node.metric_value("sluice_agent_reconcile_failures_total{type=\"end_older\"}") as u64;
    // Once they are due and fail, and the pod has something to say.
    api.set_down(true);
    let facts = node.reconciler.facts(&crate::facts::PodUid("uid-web".into())).unwrap();
    let labelled = crate::facts::PodFacts { dataplane_mode: Some("ambient".into()), ..facts };
    node.reconciler.observe(super::Fact::Pod(labelled));
    eventually("it fails", || async { failures() >= 1 }).await;
    api.label("web", Some("ambient"));
    api.set_down(false);
    let told = || api.annotation("web", "ambient.istio.io/redirection").is_some();
    eventually("peers are told", || async { told() }).await;
    let before = failures();
    eventually("it is tried again", || async { failures() > before }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_older_connections_counts_from_the_capture_and_not_from_a_repair() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    api.annotate("web", OLDER, "keep-for=1h");
    let uid = crate::facts::PodUid("uid-web".into());
    let known = || node.reconciler.table().get(&uid).and_then(|pod| pod.aging);
    eventually("its time is known", || async { known().is_some() }).await;
    let aging = || known().unwrap();
    let since = aging().since;
    pod.run("nft flush ruleset");
    let repaired = "sluice_agent_drift_repairs_total{kind=\"rules\"} 1";
    eventually("it is repaired", || async { node.metric(repaired) }).await;
    node.looks_again("web").await;
    assert_eq!(aging().since, since, "by the same options as before");
    api.annotate("web", OUTBOUND_PORTS, "5432");
    holds(&pod, "out_skip", "5432").await;
    node.looks_again("web").await;
    assert_eq!(aging().since, since, "what is excluded now is no older for it");
    api.unannotate("web", OUTBOUND_PORTS);
    eventually("what was excluded is older now", || async { aging().since > since }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_that_nobody_saw_being_made_leaves_the_last_good_options() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    api.annotate("web", OUTBOUND_PORTS, "5432");
    holds(&pod, "out_skip", "5432").await;
    node.stop().await;

    api.annotate("web", OUTBOUND_PORTS, "5432;80");
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    eventually("people are told", || async { api.messages("BadOption").len() == 1 }).await;
    node.looks_again("web").await;
    holds(&pod, "out_skip", "5432").await;
    assert!(!api.events().contains(&"Drifted".to_owned()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_reaches_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    for (key, value, seen) in [
        ("sluice.dev/exclude-inbound-ports", "22,9000-9100", "elements = { 22, 9000-9100 }"),
        ("sluice.dev/exclude-outbound-cidrs", "192.0.2.0/24", "elements = { 192.0.2.0/24 }"),
        ("istio.io/reroute-virtual-interfaces", "k6t-eth0", "iifname \"k6t-eth0\""),
        ("sluice.dev/uncaptured-protocols", "block", "hook forward"),
        ("ambient.istio.io/dns-capture", "true", "redirect to :15053"),
    ] {
        api.annotate("web", key, value);
        let rules = || pod.run("nft list ruleset").contains(seen);
        eventually(&format!("{key} is in the kernel"), || async { rules() }).await;
    }
    api.annotate("web", "ambient.istio.io/bypass-inbound-capture", "true");
    let rules = || pod.run("nft list ruleset").contains("redirect to :15006");
    eventually("inbound is direct", || async { !rules() }).await;
    let events = api.events();
    assert!(!events.contains(&"Drifted".to_owned()) && !events.contains(&"Released".to_owned()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_of_before_do_not_decide_about_those_after() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    let _far = pod.far_end();
    let ask = || {
        pod.inside(|| {
            let socket = std::net::UdpSocket::bind("10.9.1.1:5353").unwrap();
            socket.send_to(b"?", "10.9.1.2:53").unwrap();
        });
    };
    for (capture, redirected) in [("false", false), ("true", true), ("false", false)] {
        api.annotate("web", "ambient.istio.io/dns-capture", capture);
        let entry = || {
            ask();
            let entries = pod.run("conntrack -L -p udp --orig-port-dst 53");
            !entries.is_empty() && entries.contains("sport=15053") == redirected
        };
        eventually(&format!("lookups are as with {capture}"), || async { entry() }).await;
    }
    node.stop().await;
}

/// What the kernel shows after a release that found connections still open at the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_ends_what_is_left_and_leaves_nothing_in_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    api.annotate("web", "ambient.istio.io/dns-capture", "true");
    let _far = pod.far_end();
    holds_rule(&pod, "redirect to :15053").await;
    let (mut app, mut outbound) = pod.dial_captured();
    echo(&mut app, &mut outbound);
    let (mut inbound, mut served) = pod.dial_as_ztunnel();
    echo(&mut inbound, &mut served);
    pod.inside(|| {
        let socket = std::net::UdpSocket::bind("10.9.1.1:0").unwrap();
        socket.send_to(b"?", "10.9.1.2:53").unwrap();
    });
    let (mut near, mut far) = pod.dial_itself();
    assert!(pod.run("conntrack -L -p udp").contains("sport=15053"));

    api.label("web", None);
    node.reaches("web", super::State::Draining).await;
    echo(&mut app, &mut outbound);
    node.reaches("web", super::State::Outside).await;
    let own = format!("dport={} ", far.local_addr().unwrap().port());
    let traces = pod.traces();
    let traces: Vec<_> = traces.lines().filter(|line| !line.contains(&own)).collect();
    assert!(traces.is_empty(), "{traces:?}");
    for end in [&mut app, &mut outbound, &mut inbound, &mut served] {
        end.set_read_timeout(Some(crate::testing::PATIENCE)).unwrap();
        let kind = end.read(&mut [0]).unwrap_err().kind();
        assert!(!matches!(kind, std::io::ErrorKind::WouldBlock), "{kind}");
    }
    echo(&mut near, &mut far);
    let sockets = pod.run("ss -tanH");
    let left: Vec<_> = sockets.lines().filter(|line| !line.contains("10.9.0.5")).collect();
    assert!(left.is_empty(), "{sockets}");
    assert_eq!(sockets.lines().count(), 2, "the application's own: {sockets}");
    node.stop().await;
}

async fn holds_rule(pod: &ScratchPod, rule: &str) {
    let rules = || pod.run("nft list ruleset").contains(rule);
    eventually(&format!("the kernel has {rule}"), || async { rules() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_with_a_mistake_is_captured_by_the_nodes_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    api.add_pod("web", Some("10.9.0.5"));
    api.annotate("web", OUTBOUND_PORTS, "http");
    api.annotate("web", "sluice.dev/exclude-inbound-ports", "22");
    api.label("web", Some("ambient"));
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert_eq!(outcome, plugin_api::Outcome::Captured);
    holds(&pod, "in_skip", "22").await;
    assert!(!pod.run("nft list set inet sluice out_skip").contains("elements"));
    eventually("people are told once", || async { api.messages("BadOption").len() == 1 }).await;
    assert!(api.messages("BadOption")[0].contains("the node's default counts"));
    node.looks_again("web").await;
    assert_eq!(api.messages("BadOption").len(), 1);
    node.stop().await;
}
