//! Stories of an agent and an API: objects that come and go in any order, and an API that
//! is away.

use std::path::Path;
use std::time::{Duration, SystemTime};

use plugin_api::{Code, Outcome, Verb};
use tokio_util::sync::CancellationToken;
use zds::link::Link;

use super::series::{Kind, Topic, Write};
use super::*;
use crate::reconcile::State;
use crate::testing::{FakeApi, FakeZtunnel, Node, ScratchPod, eventually, pod};

mod many;

const PODS_WATCHED: &str = "sluice_agent_kube_watch_up{kind=\"pods\"} 1";
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// A namespace's neighbour. An interface ends with the namespace that its other end is in,
/// so the kernel itself tells when the last descriptor of that is closed.
struct Witness {
    beside: ScratchPod,
}

impl Witness {
    fn of(pod: &ScratchPod) -> Self {
        let beside = ScratchPod::new();
        let path = pod.path();
        let path = path.display();
        beside.run(&format!("ip link add seen type veth peer name beside netns {path}"));
        Self { beside }
    }

    fn sees(&self) -> bool {
        self.beside.try_run("ip link show seen").0
    }

    async fn sees_it_end(&self) {
        eventually("the namespace is gone", || async { !self.sees() }).await;
    }
}

/// A captured pod, with all that the agent has of it.
async fn captured(folder: &Path) -> (Node, FakeApi, FakeZtunnel, ScratchPod) {
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start(folder, &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    advertised(&api).await;
    (node, api, ztunnel, pod)
}

async fn advertised(api: &FakeApi) {
    eventually("peers are told", || async {
        api.annotation("web", REDIRECTION).as_deref() == Some("enabled")
    })
    .await;
}

fn is_redirected(pod: &ScratchPod) -> bool {
    pod.run("nft list ruleset").contains("redirect to :15001")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_api_has_deleted_is_let_go_without_any_del() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    let witness = Witness::of(&pod);
    drop(pod);
    assert!(witness.sees(), "agent and ztunnel hold the namespace");
    api.delete_pod("web");
    witness.sees_it_end().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_one_whose_connections_are_turned_away_for_want_of_a_ztunnel() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start(folder.path(), &api).await;
    // One that takes listeners: the agent has them.
    let ztunnel = node.taking_ztunnel(std::sync::Arc::default()).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    drop(ztunnel);
    eventually("the door is closed", || async {
        // It listens, and is reset: connections are turned away.
        let dialled = pod.inside(|| std::net::TcpStream::connect("127.0.0.1:15008"));
        dialled.is_ok_and(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let reset = std::io::Read::read(&mut &stream, &mut [0]);
            reset.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        })
    })
    .await;
    let witness = Witness::of(&pod);
    drop(pod);
    assert!(witness.sees(), "the agent holds the namespace");
    api.delete_pod("web");
    witness.sees_it_end().await;
    node.stop().await;
}

/// A ztunnel that answers when it is told to.
struct SlowZtunnel(Link);

impl SlowZtunnel {
    async fn connect(node: &Node, folder: &Path) -> Self {
        let link = Link::connect(&folder.join("ztunnel.sock")).await.unwrap();
        link.send(b"\x08\x01", &[]).await.unwrap();
        let this = Self(link);
        this.hears().await;
        this.answers().await;
        eventually("it has the snapshot", || async { node.link.is_live() }).await;
        this
    }

    async fn hears(&self) -> zds::Request {
        let packet = self.0.recv().await.unwrap().expect("a request");
        zds::decode_request(&packet.bytes, packet.fds).unwrap()
    }

    async fn answers(&self) {
        self.0.send(b"\x0a\x00", &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_while_add_is_under_way_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = SlowZtunnel::connect(&node, folder.path()).await;
    let deleting = async {
        assert!(matches!(ztunnel.hears().await, zds::Request::Add { .. }));
        api.delete_pod("web");
        eventually("the agent knows", || async {
            let table = node.reconciler.table();
            table.get(&crate::facts::PodUid("uid-web".into())).is_some_and(|pod| pod.ending)
        })
        .await;
        ztunnel.answers().await;
        assert!(matches!(ztunnel.hears().await, zds::Request::Del(_)), "it is let go at once");
        ztunnel.answers().await;
    };
    let (_, ()) = tokio::join!(node.call(Verb::Add, "web", &pod), deleting);
    eventually("nothing is known", || async { node.state("web").is_none() }).await;
    let next = node.ztunnel(None).await;
    eventually("nobody hears of it", || async { next.lines() == ["snapshot"] }).await;

    // The runtime has not noticed and tries again.
    let late = node.call(Verb::Add, "web", &pod).await;
    assert!(matches!(late, Outcome::Error { code: Code::TryAgain, .. }), "{late:?}");
    assert_eq!(node.state("web"), None);
    let witness = Witness::of(&pod);
    drop((pod, ztunnel));
    witness.sees_it_end().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_away_changes_nothing_for_running_pods() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = captured(folder.path()).await;
    let watches = |up: u8| {
        let up = move |kind| format!("sluice_agent_kube_watch_up{{kind=\"{kind}\"}} {up}");
        ["pods", "namespaces"].iter().all(|kind| node.metric(&up(kind)))
    };
    eventually("both are watched", || async { watches(1) }).await;
    api.set_down(true);
    eventually("it is seen in the metrics", || async { watches(0) }).await;

    pod.run("nft flush ruleset");
    eventually("rules are repaired as ever", || async { is_redirected(&pod) }).await;
    drop(ztunnel);
    eventually("it is gone", || async { !node.link.is_live() }).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(ztunnel.lines()[..2], ["add uid-web", "snapshot"]);
    assert_eq!(node.state("web"), Some(State::Captured));

    // A pod of which the API has not told is not let in: nobody knows who it is.
    let other = ScratchPod::new();
    let unknown = node.call(Verb::Add, "other", &other).await;
    assert!(matches!(unknown, Outcome::Error { code: Code::TryAgain, .. }), "{unknown:?}");
    // The sandbox is made again, its pod is known.
    let again = ScratchPod::new();
    let mut request = Node::request(Verb::Add, "web", &again);
    request.container_id = "c-again".into();
    assert_eq!(node.send(request.clone(), Some(again.netns())).await, Outcome::Captured);
    // What was decided meanwhile counts when it is back.
    api.label("web", None);
    assert_eq!(node.state("web"), Some(State::Captured));
    api.set_down(false);
    node.reaches("web", State::Outside).await;
    assert_eq!(again.traces(), "");
    assert!(node.metric(PODS_WATCHED), "as was heard");
    eventually("and what happened meanwhile is told", || async { api.told("Drifted") > 0 }).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_while_the_api_is_away_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, ztunnel, pod) = captured(folder.path()).await;
    api.set_down(true);
    assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
    eventually("ztunnel lets go", || async { !ztunnel.serves("uid-web") }).await;
    let witness = Witness::of(&pod);
    drop(pod);
    witness.sees_it_end().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pods_of_the_own_node_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, _pod) = captured(folder.path()).await;
    let lists = api.requests();
    let lists: Vec<_> = lists.iter().filter(|line| line.contains("/api/v1/pods?")).collect();
    assert!(lists.len() >= 2, "a list and a watch: {lists:?}");
    assert!(
        lists.iter().all(|line| line.contains("fieldSelector=spec.nodeName%3Dn1")),
        "{lists:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn what_is_told_a_thousand_times_is_written_once() {
    let api = FakeApi::new();
    let client = api.client(Metrics::default());
    for _ in 0..1000 {
        client.tell(&pod("web"), EventReason::Drifted, "repaired: rules".into());
    }
    client.tell(&pod("web"), EventReason::Released, "traffic is direct again".into());
    let stop = CancellationToken::new();
    let writer = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { client.write_events(stop).await }
    });
    eventually("both are written", || async { api.events() == ["Drifted", "Released"] }).await;
    assert_eq!((api.told("Drifted"), api.told("Released")), (1000, 1));
    stop.cancel();
    writer.await.unwrap();
}

#[tokio::test]
async fn an_event_is_counted_in_the_one_that_is_there() {
    let api = FakeApi::new();
    let client = api.client(Metrics::default());
    let facts = pod("web");
    let topic = Topic {
        uid: facts.uid,
        pod: facts.name,
        reason: EventReason::Drifted,
        message: "repaired: rules".into(),
    };
    let now = SystemTime::now();
    let first = Write {
        series: 0,
        topic,
        name: "web.1".into(),
        kind: Kind::Create,
        count: 1,
        first: now,
        last: now,
    };
    assert!(client.write_event(&first).await);
    let again = Write { kind: Kind::Count, count: 7, ..first.clone() };
    assert!(client.write_event(&again).await);
    assert_eq!((api.events().len(), api.told("Drifted")), (1, 7));
    let vanished = Write { name: "web.0".into(), ..again };
    assert!(client.write_event(&vanished).await, "no reason to wait for the API");
    api.set_down(true);
    assert!(!client.write_event(&first).await);
}

#[tokio::test]
async fn the_nodes_taint_is_removed_and_no_other() {
    let (api, stop) = (FakeApi::new(), CancellationToken::new());
    let key = "sluice.dev/agent-not-ready";
    api.add_node(&["node.kubernetes.io/unschedulable", key, "example.com/gpu"]);
    api.set_down(true);
    let client = api.client(Metrics::default());
    let removing = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { client.remove_taint(key, stop).await }
    });
    eventually("it is tried while the API is away", || async { !api.requests().is_empty() }).await;
    assert!(!removing.is_finished(), "and will be again");
    api.set_down(false);
    removing.await.unwrap();
    assert_eq!(api.taints(), ["node.kubernetes.io/unschedulable", "example.com/gpu"]);
    let patches = |api: &FakeApi| {
        api.requests().iter().filter(|line| line.starts_with("PATCH /api/v1/nodes/n1")).count()
    };
    client.remove_taint(key, stop).await;
    assert_eq!(patches(&api), 1, "nothing is written when there is nothing to remove");
}

fn refusal(code: u16, field: &str) -> kube::Error {
    let answer = json!({
        "status": "Failure", "code": code, "message": "no", "reason": "No",
        "details": { "causes": [{ "field": field, "reason": "", "message": "" }] },
    });
    let status: kube::core::Status = serde_json::from_value(answer).unwrap();
    kube::Error::Api(status.boxed())
}

#[test]
fn another_uid_is_another_pod_however_the_server_says_it() {
    for (code, field, gone) in [
        (404, "", true),
        (409, "", true),
        (422, "metadata.uid", true),
        (422, "metadata.annotations", false),
        (403, "metadata.uid", false),
        (500, "", false),
    ] {
        assert_eq!(is_gone(&refusal(code, field)), gone, "{code} {field}");
    }
}
