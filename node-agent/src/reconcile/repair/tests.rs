//! Stories of captured pods in which somebody breaks something.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plugin_api::{Outcome, Verb};
use zds::Carries;

use crate::reconcile::{Pace, State};
use crate::testing::{FakeApi, FakeZtunnel, Node, PACE, ScratchPod, Told, eventually};

mod foreign;
mod waiting;

const HOUR: Duration = Duration::from_secs(3600);
/// With it, an agent that does not listen to the kernel finds nothing.
const DEAF: Pace = Pace { verify_interval: HOUR, compare_interval: HOUR, ..PACE };

struct Captured {
    node: Node,
    api: FakeApi,
    ztunnel: FakeZtunnel,
    pod: ScratchPod,
}

/// Pod `web` captured, its ztunnel one that takes listeners.
async fn captured(folder: &Path, pace: Pace) -> Captured {
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start_at(folder, &api, pace).await;
    let ztunnel = node.taking_ztunnel(Arc::new(Mutex::new(Told::default()))).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    let captured = Captured { node, api, ztunnel, pod };
    captured.says("captured").await;
    captured
}

impl Captured {
    async fn says(&self, expected: &str) {
        eventually(&format!("the pod says {expected}"), || async {
            self.observed().as_deref() == Some(expected)
        })
        .await;
    }

    fn observed(&self) -> Option<String> {
        self.api.annotation("web", "sluice.dev/observed")
    }

    async fn repaired(&self, kind: &str, times: u32) {
        let line = format!("sluice_agent_drift_repairs_total{{kind=\"{kind}\"}} {times}");
        eventually(&line, || async { self.node.metric(&line) }).await;
        assert_eq!(
            self.api.annotation("web", "ambient.istio.io/redirection").as_deref(),
            Some("enabled"),
            "peers use the tunnel all along"
        );
    }

    #[must_use]
    fn count(&self, event: &str) -> usize {
        self.api.events().iter().filter(|found| *found == event).count()
    }

    fn is_whole(&self) -> bool {
        is_whole(&self.pod)
    }
}

fn is_whole(pod: &ScratchPod) -> bool {
    let families = ["-4", "-6"].iter().all(|family| {
        let route = pod.try_run(&format!("ip {family} route show table 1337")).1;
        pod.run(&format!("ip {family} rule")).contains("lookup 1337")
            && route.contains("local default dev lo")
    });
    families && is_redirected(pod)
}

fn is_redirected(pod: &ScratchPod) -> bool {
    pod.run("nft list ruleset").contains("redirect to :15001")
}

fn switch_v6(pod: &ScratchPod, value: &'static str) {
    for interface in ["all", "lo"] {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        pod.inside(move || std::fs::write(path, value)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_tells_is_repaired_without_a_timer() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    let damages = [
        ("nft flush ruleset", "rules", 1),
        ("nft add rule inet sluice nat_out accept", "rules", 2),
        ("ip rule del pref 13", "policy_route", 1),
        ("ip -6 rule del pref 13", "policy_route", 2),
        ("ip route flush table 1337", "policy_route", 3),
        ("ip -6 route flush table 1337", "policy_route", 4),
    ];
    for (damage, kind, times) in damages {
        web.pod.run(damage);
        web.repaired(kind, times).await;
        assert!(web.is_whole(), "{damage}");
    }
    web.says("captured").await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_while_a_repair_goes_on_and_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    web.pod.run("nft flush ruleset");
    web.repaired("rules", 1).await;
    eventually("both are written, in this order", || async {
        let said = web.api.said();
        let (last, before) = said.split_last().unwrap();
        last == "captured" && before.iter().any(|text| text.starts_with("repairing: table sluice"))
    })
    .await;
    let said = web.api.said();
    let repairing = said.iter().find(|text| text.starts_with("repairing")).unwrap();
    assert!(repairing.contains("last changed by nft, process "), "{repairing}");
    eventually("one Event", || async { web.count("Drifted") == 1 }).await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_somebody_ends_listens_again_for_ztunnel() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), PACE).await;
    web.pod.run("ip link add away type veth peer name far");
    web.pod.run("ip address add 10.9.1.1/24 dev away");
    web.pod.run("ip link set far up");
    web.pod.run("ip link set away up");
    web.pod.run("ss -K -tnlH sport = :15001 or sport = :15006 or sport = :15008");
    web.repaired("listener", 1).await;
    // What ztunnel holds since before accepts what comes now.
    let held = {
        let told = web.ztunnel.told.lock().unwrap();
        let of_outbound = told.holds["uid-web"]
            .iter()
            .find(|given| given.at.carries() == Carries::Connections && given.at.port == 15001);
        TcpListener::from(of_outbound.unwrap().fd.try_clone().unwrap())
    };
    let app = web.pod.inside(|| TcpStream::connect("10.9.1.2:80")).expect("redirected");
    held.set_nonblocking(false).unwrap();
    let (accepted, _) = held.accept().unwrap();
    std::io::Write::write_all(&mut &accepted, b"hello").unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(&mut &app, &mut word).unwrap();
    assert_eq!(&word, b"hello");
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_that_is_switched_on_later_is_captured_too() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    switch_v6(&web.pod, "1");
    eventually("its part of the policy route is gone", || async {
        !web.pod.try_run("ip -6 route show table 1337").1.contains("local default")
    })
    .await;
    // Seen off, which is no fault.
    eventually("off was taken in", || async {
        let watch = web.node.observer().known(&crate::facts::PodUid("uid-web".into()));
        watch.is_some_and(|watch| watch.had_no_v6())
    })
    .await;
    switch_v6(&web.pod, "0");
    web.repaired("ipv6", 1).await;
    assert!(web.is_whole());
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_that_is_switched_on_later_has_a_name_server_too() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    api.annotate("web", "ambient.istio.io/dns-capture", "true");
    switch_v6(&pod, "1");
    let node = Node::start_at(folder.path(), &api, DEAF).await;
    let ztunnel = node.taking_ztunnel(Arc::new(Mutex::new(Told::default()))).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    let lookups = || {
        let told = ztunnel.told.lock().unwrap();
        told.holds["uid-web"].iter().filter(|given| given.at.is_for_lookups()).count()
    };
    assert_eq!(lookups(), 2, "of IPv4");
    switch_v6(&pod, "0");
    eventually("those of IPv6 too", || async { lookups() == 4 }).await;
    eventually("all of it", || async { is_whole(&pod) }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_flaps_is_repaired_each_time_and_people_are_told_seldom() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    for _ in 0..8 {
        web.pod.run("nft flush ruleset");
        eventually("the rules are back", || async { is_redirected(&web.pod) }).await;
    }
    // Some are undone before they were looked at, and count together with the next.
    eventually("it is said that it flaps", || async { web.count("Flapping") >= 1 }).await;
    assert!(web.count("Drifted") <= 3, "{:?}", web.api.events());
    web.says("captured").await;
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_fails_of_a_captured_pod_leaves_it_to_its_del() {
    let folder = tempfile::tempdir().unwrap();
    let Captured { node, ztunnel, pod, .. } = captured(folder.path(), DEAF).await;
    drop(ztunnel);
    eventually("no ztunnel is connected", || async { !node.is_live() }).await;
    let again = node.call(Verb::Add, "web", &pod).await;
    assert!(matches!(again, Outcome::Error { .. }), "{again:?}");
    assert_eq!(node.state("web"), Some(State::Captured));
    assert!(is_whole(&pod));
    let uid = crate::facts::PodUid("uid-web".into());
    assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
    eventually("it is let go of", || async { node.observer().known(&uid).is_none() }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_while_the_agent_was_away_is_closed_before_ztunnel_comes() {
    let folder = tempfile::tempdir().unwrap();
    let Captured { node, api, ztunnel, pod } = captured(folder.path(), PACE).await;
    node.stop().await;
    drop(ztunnel);
    for damage in ["nft flush ruleset", "nft add rule inet sluice nat_out accept"] {
        pod.run(damage);
        let node = Node::start_at(folder.path(), &api, DEAF).await;
        let line = "sluice_agent_drift_repairs_total{kind=\"rules\"} 1";
        eventually("it is repaired", || async { node.metric(line) }).await;
        assert!(is_whole(&pod), "{damage}");
        node.reaches("web", State::Captured).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pod_that_lost_its_label_meanwhile_is_released_clean() {
    let folder = tempfile::tempdir().unwrap();
    let Captured { node, api, ztunnel, pod } = captured(folder.path(), PACE).await;
    node.stop().await;
    drop(ztunnel);
    pod.run("nft delete chain inet sluice guard_out");
    api.label("web", None);
    let node = Node::start_at(folder.path(), &api, PACE).await;
    node.reaches("web", State::Outside).await;
    eventually("nothing is left", || async { pod.traces().is_empty() }).await;
    assert_eq!(api.annotation("web", "ambient.istio.io/redirection"), None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_has_another_ones_address_is_another_pod() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    // The address is used again before the runtime says that the first pod has ended.
    let heir = ScratchPod::new();
    web.api.add_pod("heir", Some("10.9.0.5"));
    web.api.label("heir", Some("ambient"));
    assert_eq!(web.node.call(Verb::Add, "heir", &heir).await, Outcome::Captured);
    assert_eq!(web.node.call(Verb::Del, "web", &web.pod).await, Outcome::Done);
    heir.run("nft flush ruleset");
    web.repaired_of_all("rules", 1).await;
    assert!(is_whole(&heir));
    assert!(web.ztunnel.serves("uid-heir") && !web.ztunnel.serves("uid-web"));
    web.node.stop().await;
}

impl Captured {
    /// Like [`Captured::repaired`], when pod `web` itself does not matter.
    async fn repaired_of_all(&self, kind: &str, times: u32) {
        let line = format!("sluice_agent_drift_repairs_total{{kind=\"{kind}\"}} {times}");
        eventually(&line, || async { self.node.metric(&line) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_is_let_go_of_with_all_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    let uid = crate::facts::PodUid("uid-web".into());
    assert!(web.node.observer().known(&uid).is_some());
    assert_eq!(web.node.call(Verb::Del, "web", &web.pod).await, Outcome::Done);
    eventually("it is not watched", || async { web.node.observer().known(&uid).is_none() }).await;
    web.node.stop().await;
}

/// How long a pod is open whose rules are flushed:
/// `cargo test -p node-agent how_long -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_long_a_flushed_pod_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    for round in 1..=3 {
        let began = Instant::now();
        web.pod.run("nft flush ruleset");
        let flushed = began.elapsed();
        while !is_redirected(&web.pod) {
            tokio::task::yield_now().await;
        }
        println!("round {round}: flush {flushed:?}, back {:?} after it", began.elapsed() - flushed);
        web.repaired("rules", round).await;
    }
    web.node.stop().await;
}
