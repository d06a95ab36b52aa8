//! The mesh's own pods end and come back. Whoever else uses the cluster notices: only where
//! that is allowed.

use lab::cluster::access::paths;
use serde_json::{Value, json};

use crate::cluster::exchange::expect_whole;
use crate::cluster::ground::{Ground, START};
use crate::cluster::parts::Part;
use crate::cluster::patience::eventually;
use crate::cluster::pods::{APP_PORT, Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::expect;

/// A node selector that no node has.
pub(super) const AWAY: &str = "sluice.dev/conformance-away";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "agent-restarts",
            &[39],
            "an agent's pod is replaced while captured pods talk, and no connection fails",
            agent_restarts
        ),
        scenario!(
            "agent-away",
            &[34, 39],
            "without the agent labelled pods wait in ContainerCreating, and then start captured",
            agent_away
        ),
        scenario!(
            "probes-without-the-agent",
            &[23],
            "under STRICT probes go on passing while the agent is away, and after it is back",
            probes_without
        ),
        scenario!(
            "kept-connection-and-the-agent",
            &[39],
            "a connection through the tunnel lives on while the agent's pod is replaced",
            kept_connection
        ),
        scenario!(
            "ztunnel-restarts",
            &[41],
            "a ztunnel's pod is ended: then connections succeed again, and never in clear text",
            ztunnel_restarts
        ),
        scenario!(
            "ztunnel-rolls-under-load",
            &[40],
            "a rolling update of ztunnel fails no new connection",
            ztunnel_rolls
        ),
    ]
}

/// Deletes a part's pod on a node, and waits until another one is ready there.
pub(super) async fn replace(ground: &Ground, part: &Part, node: &str) -> anyhow::Result<()> {
    let before = part.pods_on(&ground.cluster, node).await?;
    let uids: Vec<_> = before.iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    for pod in &before {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        ground.cluster.delete(&paths::pod(&part.namespace, name)).await?;
    }
    let what = format!("another pod of {} on {node} is ready", part.name);
    let replaced = async || {
        let now = part.pods_on(&ground.cluster, node).await.ok()?;
        let new = now.iter().any(|pod| !uids.contains(&pod["metadata"]["uid"]) && is_ready(pod));
        let old = now.iter().any(|pod| uids.contains(&pod["metadata"]["uid"]));
        (new && !old).then_some(())
    };
    eventually(&what, START, replaced).await
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

async fn agent_restarts(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let pods = ground.captured_couple("agent-restarts", Distance::CrossNode).await?;
    let work = replace(ground, agent, &pods.client.node);
    let ((), answers) =
        ground.under_load(&pods.client, (pods.server.addr(APP_PORT), &[]), work).await?;
    expect_whole(&answers)?;
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

async fn kept_connection(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let pods = ground.captured_couple("kept", Distance::CrossNode).await?;
    let work = replace(ground, agent, &pods.client.node);
    let to = pods.server.addr(APP_PORT);
    let ((), answers) = ground.under_load(&pods.client, (to, &["--way", "kept"]), work).await?;
    expect_whole(&answers)
}

/// Keeps the agents from all nodes until changes are taken back, and waits until that of this
/// node is gone.
pub(super) async fn send_away(ground: &Ground, agent: &Part, node: &str) -> anyhow::Result<()> {
    keep_to(ground, agent, AWAY, node).await
}

/// Keeps a part to nodes with a label until changes are taken back, and waits until its pod on a
/// node without it is gone.
pub(super) async fn keep_to(
    ground: &Ground,
    part: &Part,
    label: &str,
    outside: &str,
) -> anyhow::Result<()> {
    let selector =
        |value: Value| json!({"spec": {"template": {"spec": {"nodeSelector": {label: value}}}}});
    ground.change(&part.path(), &selector(json!("true")), selector(Value::Null)).await?;
    let gone = async || part.pods_on(&ground.cluster, outside).await.ok().filter(Vec::is_empty);
    let what = format!("the pod of {} on {outside} is gone", part.name);
    eventually(&what, START, gone).await.map(drop)
}

async fn probes_without(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let namespace = ground.namespace("probes-away", &[]).await?;
    ground.strict(&namespace).await?;
    let mut pod = ground.spec(&namespace, "probed", 1)?.label(MODE_LABEL, "ambient");
    super::probes::probed(&mut pod);
    let pod = ground.pod(&pod).await?;
    ground.until_redirection(&pod, Some("enabled")).await?;
    send_away(ground, agent, &pod.node).await?;
    super::probes::more_probes(ground, &pod).await?;
    ground.undo().await?;
    super::probes::more_probes(ground, &pod).await?;
    super::probes::still_well(ground, &pod).await
}

async fn agent_away(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let pods = ground.captured_couple("agent-away", Distance::CrossNode).await?;
    send_away(ground, agent, &pods.client.node).await?;
    // Captured pods go on.
    ground.until_captured(&pods.client, &pods.server).await?;
    let late = ground.spec(&pods.namespace, "late", 1)?.label(MODE_LABEL, "ambient");
    ground.cluster.create_pod(&late).await?;
    let path = paths::pod(&pods.namespace, "late");
    refused_by_event(ground, &path).await?;
    ground.undo().await?;
    let late = ground.running(&pods.namespace, "late").await?;
    ground.until_redirection(&late, Some("enabled")).await?;
    ground.until_captured(&late, &pods.server).await.map(drop)
}

/// The runtime has told why the pod waits, and it does wait.
async fn refused_by_event(ground: &Ground, path: &str) -> anyhow::Result<()> {
    let told = async || {
        let events = ground.cluster.events_of(path).await;
        events.contains("FailedCreatePodSandBox").then_some(events)
    };
    eventually("an event FailedCreatePodSandBox", START, told).await?;
    let object = ground.cluster.get(path).await?;
    let state = &object["status"]["containerStatuses"][0]["state"];
    let observed = format!("{} {state}", object["status"]["phase"]);
    expect("the pod waits in ContainerCreating", observed, |_| {
        object["status"]["phase"] == "Pending" && state["running"].is_null()
    })
}

async fn ztunnel_restarts(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let ztunnel = ground.parts.ztunnel()?;
    let pods = ground.captured_couple("ztunnel-restarts", Distance::CrossNode).await?;
    let marker = crate::cluster::exchange::fresh_marker();
    let nodes = [pods.client.node.as_str(), pods.server.node.as_str()];
    let sides = (pods.client.ips.as_slice(), pods.server.ips.as_slice());
    let watching = ground.observers().await?.watch(ground, &nodes, sides, &marker).await?;
    let work = async {
        let path = |pod: &Value| {
            paths::pod(&ztunnel.namespace, pod["metadata"]["name"].as_str().unwrap_or_default())
        };
        // At once, as if it had crashed.
        for pod in ztunnel.pods_on(&ground.cluster, &pods.client.node).await? {
            let now = paths::with_query(&path(&pod), &[("gracePeriodSeconds", "0")]);
            ground.cluster.delete(&now).await?;
        }
        until_asked_through(ground, &pods.client, &pods.server, &marker).await
    };
    let worked = work.await;
    let seen = watching.close().await?;
    ground.remember(format!("while ztunnel was away: {seen}"));
    worked?;
    expect("only the tunnel meanwhile", seen, |seen| {
        seen.marker == 0 && seen.elsewhere == 0 && seen.lost.is_none()
    })?;
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

/// Asks with a marker until there are answers again, and then some more.
async fn until_asked_through(
    ground: &Ground,
    client: &TestPod,
    server: &TestPod,
    marker: &str,
) -> anyhow::Result<()> {
    let more = ["--line", marker, "--times", "10", "--deadline", "5"];
    let to = server.addr(APP_PORT);
    ground
        .until_asked("ten answers in a row", client, to, &more, |answers| answers.failed() == 0)
        .await
        .map(drop)
}

async fn ztunnel_rolls(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let ztunnel = ground.parts.ztunnel()?;
    let pods = ground.captured_couple("ztunnel-rolls", Distance::CrossNode).await?;
    let path = ztunnel.path();
    let note =
        |value: Value| json!({"spec": {"template": {"metadata": {"annotations": {AWAY: value}}}}});
    let stamp = crate::cluster::exchange::fresh_marker();
    let work = async {
        // Not taken back: that would be another rolling update, which nobody would watch.
        ground.cluster.merge_patch(&path, &note(json!(stamp))).await?;
        ztunnel.until_rolled_out(&ground.cluster, 2 * START).await
    };
    let ((), answers) =
        ground.under_load(&pods.client, (pods.server.addr(APP_PORT), &[]), work).await?;
    expect_whole(&answers)?;
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}
