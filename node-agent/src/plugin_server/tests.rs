use std::os::unix::net::UnixStream as BlockingStream;

use netns::PodNetns;
use plugin_api::{Code, Request, Verb};

use super::*;
use crate::facts::PodUid;
use crate::reconcile::State;
use crate::testing::{FakeApi, Node, ScratchPod, eventually, send_frame};

struct Lab {
    folder: tempfile::TempDir,
    api: FakeApi,
    pod: ScratchPod,
}

fn lab() -> Lab {
    let api = FakeApi::new();
    api.add_pod("web", None);
    api.label("web", Some("ambient"));
    Lab { folder: tempfile::tempdir().unwrap(), api, pod: ScratchPod::new() }
}

fn code(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Error { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_pod_is_captured_before_it_starts() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    assert!(ztunnel.serves("uid-web"));
    let rules = pod.run("nft --stateless list ruleset");
    assert!(rules.contains("table inet sluice"), "{rules}");
    assert_eq!(node.call(Verb::Check, "web", &pod).await, Outcome::Captured);
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured, "once more");
    assert_eq!(pod.run("nft --stateless list ruleset"), rules, "and none of it twice");

    // Peers are told although the API does not show an address yet.
    eventually("peers are told", || async {
        api.annotation("web", "ambient.istio.io/redirection").as_deref() == Some("enabled")
            && api.annotation("web", "sluice.dev/observed").as_deref() == Some("captured")
    })
    .await;

    for _ in 0..3 {
        assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
        assert!(!ztunnel.serves("uid-web"));
    }
    assert!(node.metric("istio_cni_plugin_requests_total{response_code=\"0\"} 6"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outside_the_mesh_is_left_alone_and_remembered() {
    let Lab { folder, api, pod } = lab();
    api.label("web", None);
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert!(matches!(outcome, Outcome::NotInMesh { reason } if reason.contains("labelled")));
    assert_eq!(pod.traces(), "");
    let outcome = node.call(Verb::Check, "web", &pod).await;
    assert!(matches!(outcome, Outcome::NotInMesh { .. }), "{outcome:?}");

    // The namespace that the plugin told is what a later label works on.
    api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    assert!(pod.run("nft list tables").contains("table inet sluice"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_ztunnel_refuses_leaves_nothing() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(Some("uid-web")).await;
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert_eq!(code(&outcome), Some(Code::TryAgain), "{outcome:?}");
    assert!(format!("{outcome:?}").contains("address in use"), "{outcome:?}");
    assert_eq!(pod.traces(), "");
    assert_eq!(ztunnel.lines().last().unwrap(), "del uid-web");
    let records = std::fs::read_to_string(folder.path().join("pods.json")).unwrap();
    assert!(!records.contains("uid-web"), "{records}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ztunnel_or_api_a_pod_waits() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert_eq!(code(&outcome), Some(Code::TryAgain));
    assert!(format!("{outcome:?}").contains("no ztunnel is connected"), "{outcome:?}");
    assert_eq!(pod.traces(), "");
    node.stop().await;

    api.set_down(true);
    let node = Node::start(folder.path(), &api).await;
    let outcome = node.call(Verb::Add, "web", &pod).await;
    assert_eq!(code(&outcome), Some(Code::TryAgain));
    assert!(format!("{outcome:?}").contains("look up pod shop/web"), "{outcome:?}");
    assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_pod_that_was_seen_the_api_is_not_asked() {
    let Lab { folder, api, pod } = lab();
    api.add_pod("plain", None);
    let plain = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    eventually("the pods are seen", || async {
        ["uid-web", "uid-plain"].iter().all(|uid| {
            node.reconciler.table().get(&PodUid((*uid).into())).is_some_and(|pod| pod.listed)
        })
    })
    .await;
    api.set_down(true);
    let outcome = node.call(Verb::Add, "plain", &plain).await;
    assert!(matches!(outcome, Outcome::NotInMesh { .. }), "{outcome:?}");
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_del_that_no_agent_heard_is_made_up_for() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    drop(ztunnel);
    node.stop().await;
    let records = || std::fs::read_to_string(folder.path().join("pods.json")).unwrap();
    assert!(records().contains("uid-web"));

    drop(pod);
    api.delete_pod("web");
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    eventually("the pod is forgotten", || async { !records().contains("uid-web") }).await;
    assert!(!ztunnel.serves("uid-web"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_missing() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    let outcome = node.call(Verb::Check, "web", &pod).await;
    assert_eq!(code(&outcome), Some(Code::NotCaptured), "no ADD: {outcome:?}");
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);

    let other = ScratchPod::new();
    let outcome = node.call(Verb::Check, "web", &other).await;
    assert_eq!(code(&outcome), Some(Code::InvalidNetns), "{outcome:?}");

    drop(ztunnel);
    eventually("CHECK notices that nobody serves the pod", || async {
        code(&node.call(Verb::Check, "web", &pod).await) == Some(Code::NotCaptured)
    })
    .await;
    assert!(pod.run("nft list tables").contains("sluice"), "and nothing gets out meanwhile");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_up_gets_its_capture_taken_back() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    let frame = plugin_api::encode(&Node::request(Verb::Add, "web", &pod)).unwrap();
    let stream = BlockingStream::connect(node.plugin_socket()).unwrap();
    send_frame(&stream, &frame, Some(&pod.netns()));
    drop(stream);
    eventually("ztunnel was asked", || async { ztunnel.lines().contains(&"add uid-web".into()) })
        .await;
    eventually("it was taken back", || async {
        pod.traces().is_empty() && !ztunnel.serves("uid-web")
    })
    .await;
    eventually("nothing is kept", || async {
        let table = node.reconciler.table();
        table.get(&PodUid("uid-web".into())).is_none_or(|pod| pod.attachment.is_none())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_and_affect_only_themselves() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    let add = || Node::request(Verb::Add, "web", &pod);
    let (version, uid) = (Request { version: 2, ..add() }, Some("x".to_owned()));
    let nobody = Request { name: "x".into(), uid: None, ..add() };
    let del = Node::request(Verb::Del, "web", &pod);
    let (own, empty) = (PodNetns::current().unwrap(), PodNetns::scratch().unwrap());
    let requests = [
        ("no descriptor", add(), None, Code::InvalidRequest),
        ("DEL with one", del, Some(pod.netns()), Code::InvalidRequest),
        ("version 2", version, Some(pod.netns()), Code::IncompatibleVersion),
        ("the node's own", add(), Some(own), Code::InvalidNetns),
        ("another pod's", add(), Some(empty), Code::InvalidNetns),
        ("another UID", Request { uid, ..add() }, Some(pod.netns()), Code::TryAgain),
        ("no such pod", nobody, Some(pod.netns()), Code::TryAgain),
    ];
    for (name, request, netns, expected) in requests {
        let outcome = node.send(request, netns).await;
        assert_eq!(code(&outcome), Some(expected), "{name}: {outcome:?}");
    }
    let frames = [
        ("too long", u32::MAX.to_be_bytes().to_vec()),
        ("no JSON", [&4u32.to_be_bytes()[..], b"{{{{"].concat()),
        ("too much", [plugin_api::encode(&add()).unwrap(), vec![0]].concat()),
    ];
    for (name, frame) in frames {
        let outcome = node.send_raw(frame, None).await;
        assert_eq!(code(&outcome), Some(Code::InvalidRequest), "{name}: {outcome:?}");
    }
    assert_eq!(pod.traces(), "");
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_no_namespace_is_refused() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    let file = std::os::fd::OwnedFd::from(std::fs::File::open("/proc/self/status").unwrap());
    let uts = std::os::fd::OwnedFd::from(std::fs::File::open("/proc/self/ns/uts").unwrap());
    for fd in [reader, file, uts] {
        let frame = plugin_api::encode(&Node::request(Verb::Add, "web", &pod)).unwrap();
        let stream = BlockingStream::connect(node.plugin_socket()).unwrap();
        crate::testing::send_fd(&stream, &frame, &fd);
        let outcome = node.read_reply(stream).await;
        assert_eq!(code(&outcome), Some(Code::InvalidNetns), "{outcome:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_may_lag_behind_the_runtime() {
    let Lab { folder, api, pod } = lab();
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    // The API has the pod, its watch does not show it.
    api.add_silently("late", Some("ambient"));
    assert_eq!(node.call(Verb::Add, "late", &pod).await, Outcome::Captured);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_is_roots_alone() {
    let Lab { folder, api, .. } = lab();
    let node = Node::start(folder.path(), &api).await;
    let mode = std::fs::metadata(node.plugin_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.stop().await;
}
