//! Stories of pods whose owners want something special.

use std::io::{Read, Write};
use std::net::TcpStream;

use plugin_api::Verb;

use crate::testing::{FakeApi, FakeZtunnel, Node, ScratchPod, eventually};

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
    api.annotate("web", "other", "change");
    node.looks_again().await;
    assert_eq!(api.messages("BadOption").len(), 2);
    holds(&pod, "out_skip", "5432, 8000-8010").await;

    api.unannotate("web", OUTBOUND_PORTS);
    let set = "nft list set inet sluice out_skip";
    eventually("captured again", || async { !pod.run(set).contains("elements") }).await;
    echo(&mut app, &mut accepted);
    assert!(!api.events().contains(&"Drifted".to_owned()), "a wish is no drift");
    node.stop().await;
}
