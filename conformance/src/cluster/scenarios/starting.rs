//! Pods that are in the mesh from their first packet on.

use anyhow::Context;
use lab::cluster::access::{ContainerSpec, PodSpec, paths};
use serde_json::{Value, json};

use crate::cluster::exchange::{expect_unread, fresh_marker};
use crate::cluster::ground::{Ground, START};
use crate::cluster::pods::{APP_PORT, Distance, MODE_LABEL, PROGRAM, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Sighting;
use crate::scenario::expect;

/// Pods that start together.
const MANY: usize = 20;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "first-connection-of-an-init-container",
            &[1],
            "the first connection of a labelled pod's init container goes through the tunnel",
            init_container
        ),
        scenario!(
            "twenty-at-once",
            &[1, 60],
            "twenty labelled pods start together, and none sends its first packet in clear text",
            many
        ),
        scenario!(
            "captured-before-it-answers",
            &[2],
            "with STRICT nobody outside ever reaches a pod that starts, from its first moment on",
            first_inbound
        ),
        scenario!("job-completes", &[31], "a captured job's pod ends, twice under one name", job),
        scenario!(
            "stateful-set-again",
            &[32],
            "a StatefulSet's pod that is created again under its name is captured anew",
            stateful
        ),
        scenario!(
            "host-network-is-left-alone",
            &[30],
            "a pod of the node's own network is not touched by the label",
            host_network
        ),
    ]
}

/// A server that is in the mesh already.
pub(super) async fn captured_server(
    ground: &Ground,
    namespace: &str,
    node: usize,
) -> anyhow::Result<TestPod> {
    let server = ground.spec(namespace, "server", node)?.label(MODE_LABEL, "ambient");
    let server = ground.pod(&server).await?;
    ground.until_redirection(&server, Some("enabled")).await?;
    Ok(server)
}

/// A pod that was created gets ready, says that it is captured, and reaches the server through the
/// tunnel.
pub(super) async fn becomes_captured(
    ground: &Ground,
    (namespace, name): (&str, &str),
    server: &TestPod,
) -> anyhow::Result<()> {
    let pod = ground.running(namespace, name).await?;
    is_captured(ground, &pod, server).await
}

/// A pod says that it is captured, and reaches the server through the tunnel.
pub(super) async fn is_captured(
    ground: &Ground,
    pod: &TestPod,
    server: &TestPod,
) -> anyhow::Result<()> {
    ground.until_redirection(pod, Some("enabled")).await?;
    ground.until_captured(pod, server).await.map(drop)
}

/// A labelled pod whose first container asks the server once, and must be answered.
pub(super) fn asking_first(
    ground: &Ground,
    namespace: &str,
    (name, node): (&str, usize),
    server: &TestPod,
    marker: &str,
) -> anyhow::Result<PodSpec> {
    let to = server.addr(APP_PORT).to_string();
    let command = [PROGRAM, "app", "ask", "--strict", "--to", &to, "--line", marker];
    let mut spec = ground.spec(namespace, name, node)?.label(MODE_LABEL, "ambient");
    // One of all: twenty service accounts show no more.
    spec.service_account = None;
    spec.init = Some(ContainerSpec::new(&ground.image, &command));
    Ok(spec)
}

async fn init_container(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("init", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let marker = fresh_marker();
    let spec = asking_first(ground, &namespace, ("client", 1), &server, &marker)?;
    let seen = watched(ground, &server, &marker, async {
        ground.pod(&spec).await?;
        Ok(())
    });
    expect_unread(seen.await?)
}

async fn many(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("many", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let marker = fresh_marker();
    let seen = watched(ground, &server, &marker, async {
        let mut names = Vec::new();
        for number in 0..MANY {
            let name = format!("client-{number}");
            let node = number % 2 + 1;
            let spec = asking_first(ground, &namespace, (&name, node), &server, &marker)?;
            ground.cluster.create_pod(&spec).await?;
            names.push(name);
        }
        for name in &names {
            ground.cluster.wait_ready(&namespace, name, 2 * START).await?;
        }
        Ok(())
    });
    expect_unread(seen.await?)
}

/// Watches all of a server's packets on both nodes for a marker meanwhile.
pub(super) async fn watched(
    ground: &Ground,
    server: &TestPod,
    marker: &str,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Sighting> {
    let nodes: Vec<_> = ground.nodes.iter().take(2).map(|node| node.name.as_str()).collect();
    let sides = (server.ips.as_slice(), server.ips.as_slice());
    let watching = ground.observers().await?.watch(ground, &nodes, sides, marker).await?;
    let worked = work.await;
    let seen = watching.close().await?;
    ground.remember(format!("to and from {}: {seen}", server.name));
    worked?;
    Ok(seen)
}

/// A caller outside the mesh tries all the time while pods of a service start and end. It
/// speaks in clear text, which STRICT refuses: one answer is one too many.
async fn first_inbound(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("inbound", &[]).await?;
    ground.strict(&namespace).await?;
    let outside = ground.pod(&ground.spec(&namespace, "outside", 1)?).await?;
    let probe = captured_server(ground, &namespace, 1).await?;
    let more = ["--deadline", "5"];
    let what = "STRICT is in force";
    let refused = |answers: &crate::pod_app::Answers| answers.answered == 0;
    ground.until_asked(what, &outside, probe.addr(APP_PORT), &more, refused).await?;
    for number in 0..3 {
        let name = format!("new-{number}");
        let spec = ground.spec(&namespace, &name, 1)?.label(MODE_LABEL, "ambient");
        ground.cluster.create_pod(&spec).await?;
        let has_address = |object: &Value| TestPod::read(object).is_some();
        let path = paths::pod(&namespace, &name);
        let object = ground.cluster.wait(&path, "an address", START, has_address).await?;
        let pod = TestPod::read(&object).context("a pod with an address")?;
        let to = pod.addr(APP_PORT);
        let started = async {
            ground.running(&namespace, &name).await?;
            ground.until_redirection(&pod, Some("enabled")).await
        };
        let ((), answers) = ground.under_load(&outside, (to, &[]), started).await?;
        expect("never an answer in clear text, and many refusals", answers, |answers| {
            answers.answered == 0 && answers.failed() > 1
        })?;
    }
    Ok(())
}

async fn job(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("job", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let path = paths::group("batch/v1", &namespace, "jobs");
    for round in ["first", "second"] {
        let to = server.addr(APP_PORT).to_string();
        let command = [PROGRAM, "app", "ask", "--strict", "--to", &to];
        let mut spec = PodSpec::new(&namespace, "job", &ground.image, &command);
        spec = spec.label(MODE_LABEL, "ambient");
        spec.restart = lab::cluster::access::Restart::Never;
        let job = json!({
            "metadata": {"name": "once"},
            "spec": {"backoffLimit": 0, "template": spec.template()},
        });
        ground.cluster.create(&path, &job).await?;
        let done = |object: &Value| object["status"]["succeeded"] == 1;
        let job = format!("{path}/once");
        ground.cluster.wait(&job, &format!("the {round} one completes"), START, done).await?;
        let gone = paths::with_query(&job, &[("propagationPolicy", "Foreground")]);
        ground.cluster.delete(&gone).await?;
        ground.cluster.wait_gone(&job, START).await?;
    }
    Ok(())
}

async fn stateful(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("stateful", &[]).await?;
    let client = ground.spec(&namespace, "client", 1)?.label(MODE_LABEL, "ambient");
    let client = ground.pod(&client).await?;
    let member = ground.spec(&namespace, "member", 2)?.label(MODE_LABEL, "ambient");
    ground.cluster.ensure_service_account(&namespace, "member").await?;
    let set = json!({
        "metadata": {"name": "member"},
        "spec": {
            "serviceName": "member", "replicas": 1,
            "selector": {"matchLabels": {"app": "member"}},
            "template": member.template(),
        },
    });
    let sets = paths::group("apps/v1", &namespace, "statefulsets");
    ground.cluster.create(&sets, &set).await?;
    let path = paths::pod(&namespace, "member-0");
    let mut last = String::new();
    for _ in 0..3 {
        let uid = last.clone();
        let is_new =
            |object: &Value| object["metadata"]["uid"].as_str().is_some_and(|now| now != uid);
        ground.cluster.wait(&path, "a new pod of that name", START, is_new).await?;
        let pod = ground.running(&namespace, "member-0").await?;
        ground.until_redirection(&pod, Some("enabled")).await?;
        ground.until_captured(&client, &pod).await?;
        last.clone_from(&pod.uid);
        ground.cluster.delete(&path).await?;
    }
    Ok(())
}

async fn host_network(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("host", Distance::SameNode).await?;
    let node = ground.observers().await?.as_asker(ground, &pods.client.node).await?;
    ground.cluster.label(&node.path(), MODE_LABEL, Some("ambient")).await?;
    // It goes on as before, to captured pods and from its own network.
    let more = ["--deadline", "5"];
    ground.until_answered(&node, pods.server.addr(APP_PORT), &more).await?;
    let untouched = ground.expect_redirection(&node, None).await;
    ground.cluster.label(&node.path(), MODE_LABEL, None).await?;
    untouched
}
