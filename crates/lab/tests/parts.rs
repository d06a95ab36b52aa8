//! The subject's processes, with shell scripts in their place. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lab::{Lab, MeshError, Options, PartError, Subject};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

fn script(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

async fn lab_with(folder: &Path, agent: &str, ztunnel: &str) -> Lab {
    let subject = Subject {
        node_agent: script(folder, "agent", agent),
        ztunnel: script(folder, "ztunnel", ztunnel),
        cni_plugin_dir: folder.to_owned(),
    };
    let (nodes, patience) = (1, Duration::from_secs(2));
    let options = Options { nodes, patience, subject: Some(subject), ..Options::default() };
    Lab::start(options).await.unwrap()
}

const SLEEP: &str = "echo \"up on $NODE_NAME\"; exec sleep 600";

#[tokio::test(flavor = "multi_thread")]
async fn parts_run_in_their_node_until_stopped_or_killed() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab_with(folder.path(), SLEEP, "env; exec sleep 600").await;
    let (agent, ztunnel) = (lab.node(1).agent().unwrap(), lab.node(1).ztunnel().unwrap());
    assert!(matches!(agent.stop().await, Err(PartError::State { .. })));

    agent.start().await.unwrap();
    assert!(matches!(agent.start().await, Err(PartError::State { .. })), "runs already");
    let pid = agent.pid().await.unwrap();
    let netns = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let own = lab.node(1).run(&["readlink", "/proc/self/ns/net"]).await.unwrap();
    assert_eq!(netns.to_str().unwrap(), own.stdout.trim());
    assert_eq!(agent.stop().await.unwrap().signal(), Some(Signal::SIGTERM as i32));
    assert_eq!(agent.pid().await, None);

    ztunnel.start().await.unwrap();
    let said = lab::eventually("its environment", Duration::from_secs(5), || async {
        let text = ztunnel.log_text();
        text.contains("XDS_ADDRESS=https://172.30.0.1:15012").then_some(text)
    });
    assert!(said.await.unwrap().contains("INPOD_UDS="));
    assert_eq!(ztunnel.kill().await.unwrap().signal(), Some(Signal::SIGKILL as i32));

    agent.start().await.unwrap();
    let pid = agent.pid().await.unwrap();
    let leftovers = lab.teardown().await;
    assert!(leftovers.is_clean(), "{leftovers}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "teardown ends what runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_ends_or_never_gets_ready_is_named_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab_with(folder.path(), "echo out of luck; exit 3", SLEEP).await;
    let error = lab.start_mesh().await.unwrap_err();
    assert!(matches!(error, MeshError::Part(PartError::Ended { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("node-agent of node1") && text.contains("out of luck"), "{text}");

    let error = lab.node(1).ztunnel().unwrap().ready().await.unwrap_err();
    assert!(matches!(error, PartError::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("up on node1"), "{error}");
    let leftovers = lab.teardown().await;
    assert!(leftovers.is_clean(), "{leftovers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ztunnel_gets_a_token_bound_to_its_own_pod() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab_with(folder.path(), SLEEP, SLEEP).await;
    lab.start_mesh().await.unwrap_err();
    let token = fs::read_to_string(lab.node(1).folder().join("ztunnel-token")).unwrap();
    let review = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["istio-ca"]},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = lab.kube().create(path, &review).await.unwrap();
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    let user = &answer["status"]["user"];
    assert_eq!(user["username"], "system:serviceaccount:sluice-system:ztunnel");
    let pod = user["extra"]["authentication.kubernetes.io/pod-name"][0].as_str();
    assert_eq!(pod, Some("ztunnel-node1"));
    let leftovers = lab.teardown().await;
    assert!(leftovers.is_clean(), "{leftovers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sees_the_pods_of_the_lab() {
    let lab = Lab::start(Options { nodes: 1, ..Options::default() }).await.unwrap();
    lab.create_pod(lab::PodSpec::new("shop", "web", 1).label("app", "web")).await.unwrap();
    let ran = lab
        .kubectl(&["get", "pods", "-n", "shop", "-o", "wide"])
        .await
        .expect("kubectl runs; without one on PATH, leave out what begins with kubectl_");
    assert!(ran.ok(), "{}", ran.stderr);
    assert!(ran.stdout.contains("web") && ran.stdout.contains("Running"), "{}", ran.stdout);
    assert!(lab.teardown().await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_is_restored_from_whatever_a_story_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let lab = lab_with(folder.path(), SLEEP, SLEEP).await;
    let node = lab.node(1);
    let (agent, ztunnel) = (node.agent().unwrap(), node.ztunnel().unwrap());
    agent.start().await.unwrap();
    node.next_ztunnel().unwrap().start().await.unwrap();
    let stuck = agent.pid().await.unwrap();
    let error = lab.restore_mesh().await.unwrap_err();
    assert!(matches!(error, MeshError::Part(PartError::NotReady { .. })), "{error}");
    assert!(ztunnel.pid().await.is_some(), "it did not run");
    assert_ne!(agent.pid().await, Some(stuck), "it ran and was not ready");
    assert_eq!(node.next_ztunnel().unwrap().pid().await, None, "it is not always there");
    assert!(lab.teardown().await.is_clean());
}
