//! What the runtime asks about the node: STATUS and GC; and who may ask at all.

use std::io::Read;
use std::os::unix::net::UnixStream as BlockingStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use plugin_api::{AttachmentKey, Code, GcRequest, Request, StatusRequest, Verb};

use super::*;
use crate::facts::PodUid;
use crate::reconcile::{Pace, State};
use crate::testing::{FakeApi, Node, PACE, ScratchPod, eventually};

/// Pods of namespace `shop` that belong to the mesh.
fn shop(pods: &[&str]) -> (tempfile::TempDir, FakeApi) {
    let api = FakeApi::new();
    for pod in pods {
        api.add_pod(pod, None);
        api.label(pod, Some("ambient"));
    }
    (tempfile::tempdir().unwrap(), api)
}

fn key(container_id: &str) -> AttachmentKey {
    AttachmentKey { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

async fn status(node: &Node) -> Outcome {
    node.send_raw(plugin_api::encode(&StatusRequest::new()).unwrap(), None).await
}

async fn gc(node: &Node, network: &str, valid: &[&str]) -> Outcome {
    let valid = valid.iter().map(|id| key(id)).collect();
    let request = GcRequest::new(network.to_owned(), valid);
    node.send_raw(plugin_api::encode(&request).unwrap(), None).await
}

fn records(folder: &tempfile::TempDir) -> String {
    std::fs::read_to_string(folder.path().join("pods.json")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_its_lists_and_a_ztunnel_is_ready() {
    let (folder, api) = shop(&[]);
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    assert_eq!(status(&node).await, Outcome::Ready { note: String::new() });
    node.stop().await;
}

/// ztunnel is a pod too, and the kubelet starts no pod on a node that is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_for_ztunnel_is_ready_for_ztunnel() {
    let (folder, api) = shop(&["web"]);
    let pod = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    drop(ztunnel);
    eventually("the missing ztunnel is mentioned", || async {
        matches!(status(&node).await, Outcome::Ready { note } if note.contains("no ztunnel"))
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_lists_is_not_ready() {
    let (folder, api) = shop(&["web"]);
    let pod = ScratchPod::new();
    api.set_down(true);
    let node = Node::start(folder.path(), &api).await;
    match status(&node).await {
        Outcome::Error { code: Code::NotReady, message, .. } => {
            assert!(message.contains("lists of pods and namespaces"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    api.set_down(false);
    let _ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    node.stop().await;

    // Nobody keeps the rules of the pod that an earlier life has captured.
    api.set_down(true);
    let node = Node::start(folder.path(), &api).await;
    eventually("the pod of the earlier life counts", || async {
        let said = status(&node).await;
        matches!(&said, Outcome::Error { code: Code::NotReadyImpaired, message, .. }
            if message.contains("1 running pods"))
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_ends_what_the_runtime_does_not_know_and_nothing_else() {
    let (folder, api) = shop(&["kept", "stale", "other"]);
    let (kept, stale, other) = (ScratchPod::new(), ScratchPod::new(), ScratchPod::new());
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    for (name, pod) in [("kept", &kept), ("stale", &stale)] {
        assert_eq!(node.call(Verb::Add, name, pod).await, Outcome::Captured);
    }
    let add = Node::request(Verb::Add, "other", &other);
    let add = Request { network: Some("storage".to_owned()), ..add };
    assert_eq!(node.send(add, Some(other.netns())).await, Outcome::Captured);

    let unknown = gc(&node, "never-heard-of", &[]).await;
    assert_eq!(unknown, Outcome::Collected { attachments: 0 });
    for name in ["kept", "stale", "other"] {
        assert!(ztunnel.serves(&format!("uid-{name}")), "{name}");
    }
    let collected = gc(&node, "lab", &["c-kept", "c-of-another-runtime"]).await;
    assert_eq!(collected, Outcome::Collected { attachments: 1 });
    assert!(!ztunnel.serves("uid-stale"));
    for name in ["kept", "other"] {
        assert!(ztunnel.serves(&format!("uid-{name}")), "{name}");
        assert!(records(&folder).contains(&format!("uid-{name}")), "{name}");
        let pod = PodUid(format!("uid-{name}"));
        assert_eq!(node.reconciler.table().get(&pod).unwrap().state, State::Captured);
    }
    assert!(!records(&folder).contains("uid-stale"));
    // A pod that should not have been in it is closed, not open.
    assert!(stale.run("nft list tables").contains("table inet sluice"));

    let again = gc(&node, "lab", &["c-kept"]).await;
    assert_eq!(again, Outcome::Collected { attachments: 0 });
    let all = gc(&node, "lab", &[]).await;
    assert_eq!(all, Outcome::Collected { attachments: 1 }, "none is valid");
    assert!(!ztunnel.serves("uid-kept") && ztunnel.serves("uid-other"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_looks_at_the_interface_too() {
    let (folder, api) = shop(&["web"]);
    let pod = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    let net1 = AttachmentKey { ifname: "net1".to_owned(), ..key("c-web") };
    let request = GcRequest::new("lab".to_owned(), vec![net1]);
    let outcome = node.send_raw(plugin_api::encode(&request).unwrap(), None).await;
    assert_eq!(outcome, Outcome::Collected { attachments: 1 });
    assert!(!ztunnel.serves("uid-web"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_another_release_is_told_which() {
    let (folder, api) = shop(&[]);
    let node = Node::start(folder.path(), &api).await;
    for (body, expected, words) in [
        (r#"{"version":2,"verb":"ADD","shape":"new"}"#, Code::IncompatibleVersion, "version 2"),
        (r#"{"version":0}"#, Code::IncompatibleVersion, "version 0"),
        (r#"{"version":1,"verb":"MOVE"}"#, Code::InvalidRequest, "unknown variant `MOVE`"),
    ] {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        match node.send_raw([&length, body.as_bytes()].concat(), None).await {
            Outcome::Error { code, message, .. } => {
                assert_eq!(code, expected, "{message}");
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_about_a_pod_has_no_descriptor() {
    let (folder, api) = shop(&[]);
    let pod = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    for frame in [
        plugin_api::encode(&StatusRequest::new()).unwrap(),
        plugin_api::encode(&GcRequest::new("lab".to_owned(), vec![])).unwrap(),
    ] {
        let outcome = node.send_raw(frame, Some(pod.netns())).await;
        assert!(
            matches!(outcome, Outcome::Error { code: Code::InvalidRequest, .. }),
            "{outcome:?}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_listeners_and_addresses_too() {
    let (folder, api) = shop(&["web"]);
    let pod = ScratchPod::new();
    // So slow that nobody but CHECK finds anything.
    let hour = Duration::from_secs(3600);
    let pace = Pace { verify_interval: hour, compare_interval: hour, ..PACE };
    let node = Node::start_at(folder.path(), &api, pace).await;
    let _ztunnel = node.taking_ztunnel(Arc::default()).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    assert_eq!(node.call(Verb::Check, "web", &pod).await, Outcome::Captured);

    let says = |outcome: &Outcome, words: &str| match outcome {
        Outcome::Error { code: Code::NotCaptured, message, .. } => message.contains(words),
        _ => false,
    };
    pod.run("ss -K -tnlH sport = :15006");
    let outcome = node.call(Verb::Check, "web", &pod).await;
    assert!(says(&outcome, "listener"), "{outcome:?}");
    eventually("what CHECK has found is repaired", || async {
        node.call(Verb::Check, "web", &pod).await == Outcome::Captured
    })
    .await;

    let elsewhere = Request { ips: vec!["10.99.0.1".parse().unwrap()], ..check(&pod) };
    let outcome = node.send(elsewhere, Some(pod.netns())).await;
    assert!(says(&outcome, "10.99.0.1"), "{outcome:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_interface_is_captured_with_its_sandbox_and_ends_nothing() {
    let (folder, api) = shop(&["web"]);
    let pod = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.taking_ztunnel(Arc::default()).await;
    let net1 = |verb| Request { ifname: "net1".to_owned(), ..Node::request(verb, "web", &pod) };
    let netns = || Some(pod.netns());
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    assert_eq!(node.send(net1(Verb::Add), netns()).await, Outcome::Captured);
    assert_eq!(node.send(net1(Verb::Check), netns()).await, Outcome::Captured);
    assert_eq!(node.send(net1(Verb::Del), None).await, Outcome::Done);
    assert!(ztunnel.serves("uid-web"));
    assert_eq!(node.call(Verb::Check, "web", &pod).await, Outcome::Captured);
    assert_eq!(node.call(Verb::Del, "web", &pod).await, Outcome::Done);
    assert!(!ztunnel.serves("uid-web"));
    node.stop().await;
}

fn check(pod: &ScratchPod) -> Request {
    Node::request(Verb::Check, "web", pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_signs_of_life() {
    let (folder, api) = shop(&[]);
    let node = Node::start(folder.path(), &api).await;
    let _ztunnel = node.ztunnel(None).await;
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(folder.path()).unwrap().set_modified(long_ago).unwrap();
    eventually("the folder is touched", || async {
        let touched = std::fs::metadata(folder.path()).unwrap().modified().unwrap();
        touched > long_ago + Duration::from_secs(1800)
    })
    .await;
    node.stop().await;
}

/// The kernel names whoever called connect(2) as the peer. The test executes itself as
/// somebody else for this one call, with the door opened for everybody.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "to become somebody else")]
async fn who_is_not_root_is_told_nothing_even_through_an_open_door() {
    const NOBODY: u32 = 65534;
    const SOCKET: &str = "SLUICE_TEST_SOCKET";
    if let Some(socket) = std::env::var_os(SOCKET) {
        let mut stream = BlockingStream::connect(socket).unwrap();
        let frame = plugin_api::encode(&StatusRequest::new()).unwrap();
        // It may have hung up already.
        let _ = std::io::Write::write_all(&mut stream, &frame);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        return;
    }
    let (folder, api) = shop(&[]);
    let node = Node::start(folder.path(), &api).await;
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(folder.path());
    open(&node.plugin_socket());
    let as_nobody = || {
        let test = "plugin_server::node_tests::\
                    who_is_not_root_is_told_nothing_even_through_an_open_door";
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", test]).env(SOCKET, node.plugin_socket());
        command.stdin(Stdio::null()).uid(NOBODY).output().unwrap()
    };
    let output = as_nobody();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(matches!(status(&node).await, Outcome::Ready { .. } | Outcome::Error { .. }));
    node.stop().await;
}

/// What a plugin that reaches no agent is told.
fn known(folder: &tempfile::TempDir) -> Vec<String> {
    let bytes = std::fs::read(folder.path().join(plugin_api::KNOWN_FILE)).unwrap_or_default();
    let list = serde_json::from_slice::<plugin_api::KnownOutside>(&bytes);
    list.map_or(Vec::new(), |list| list.pods.into_iter().map(|pod| pod.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outside_the_mesh_are_written_down_until_they_are_to_be_captured() {
    let (folder, api) = shop(&["captured"]);
    for (name, mode) in [("plain", None), ("opted-out", Some("none")), ("typo", Some("ambeint"))] {
        api.add_pod(name, None);
        api.label(name, mode);
    }
    let pod = ScratchPod::new();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(Some("uid-plain")).await;
    let outside = ["opted-out", "plain"];
    eventually("pods that are outside by a wish", || async { known(&folder) == outside }).await;
    assert!(matches!(node.call(Verb::Add, "plain", &pod).await, Outcome::NotInMesh { .. }));

    // ztunnel refuses, so that this is seen before anything else comes of the label.
    api.label("plain", Some("ambient"));
    eventually("ztunnel was asked", || async { ztunnel.lines().contains(&"add uid-plain".into()) })
        .await;
    assert_eq!(known(&folder), ["opted-out"], "struck off before the first step");
    api.delete_pod("opted-out");
    eventually("the last one has gone", || async { known(&folder).is_empty() }).await;
    node.stop().await;
    assert!(folder.path().join(plugin_api::KNOWN_FILE).exists(), "for the time without an agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hears_of_no_changes_does_not_stand_by_the_list() {
    let (folder, api) = shop(&[]);
    api.add_pod("plain", None);
    let node = Node::start(folder.path(), &api).await;
    eventually("the pod is in the list", || async { known(&folder) == ["plain"] }).await;
    let file = std::fs::File::open(folder.path().join(plugin_api::KNOWN_FILE)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let stood_by = || file.metadata().unwrap().modified().unwrap() > long_ago;

    api.set_down(true);
    eventually("no watch stands", || async { !node.reconciler.is_up_to_date() }).await;
    file.set_modified(long_ago).unwrap();
    super::known::stand_by(&node.reconciler).await;
    assert!(!stood_by(), "labels may have changed");

    api.set_down(false);
    // A watch that goes on where it ended is believed when it shows something, or after a while.
    let heard = async {
        while !node.reconciler.is_up_to_date() {
            let news = serde_json::json!({"metadata": {"annotations": {"news": "x"}}});
            for path in ["/api/v1/namespaces/shop", "/api/v1/namespaces/shop/pods/plain"] {
                api.patch(path, &news);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::testing::PATIENCE * 2, heard).await.expect("watches stand again");
    super::known::stand_by(&node.reconciler).await;
    assert!(stood_by());
    node.stop().await;
}
