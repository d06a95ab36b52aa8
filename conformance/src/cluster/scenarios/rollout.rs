//! Other settings, and other nodes, for the mesh's own workloads.

use anyhow::Context;
use lab::cluster::access::paths;
use serde_json::{Value, json};

use super::door::Door;
use super::options::ours;
use super::parts::{AWAY, keep_to, send_away};
use super::starting::{asking_first, becomes_captured, captured_server, is_captured, watched};
use crate::cluster::exchange::{Seen, Target, expect_unread, expect_whole, fresh_marker};
use crate::cluster::ground::{Ground, START};
use crate::cluster::parts::Part;
use crate::cluster::pods::{APP_PORT, Distance, GREET_PORT, MODE_LABEL};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Lists;
use crate::scenario::{Skip, expect};

/// The setting that changes what stands in every pod.
const SETTING: &str = "EXCLUDE_OUTBOUND_PORTS";
/// A label that only some nodes have.
const INSIDE: &str = "sluice.dev/conformance-inside";
/// The pod that takes the mesh off a node.
const LEAVE: &str = "sluice-conformance-leave";
/// Pods that wait for a new node.
const QUEUED: usize = 5;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "rules-upgraded-under-load",
            &[56],
            "agents with another setting change the rules of running pods, and lose no connection",
            upgraded
        ),
        scenario!(
            "nodes-outside",
            &[70],
            "a node that has left the rollout by the documented command is untouched; then it is back",
            outside
        ),
        scenario!(
            "fresh-node",
            &[48],
            "pods that waited for a node which had nothing of the mesh start there captured",
            fresh
        ),
    ]
}

async fn upgraded(ground: &Ground) -> anyhow::Result<()> {
    ours(ground)?;
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let pods = ground.captured_couple("upgraded", Distance::CrossNode).await?;
    let words = ["--way", "greeted"];
    let port = Target::via(pods.server.addr(GREET_PORT), &pods.server).more(&words);
    ground.until("captured before", &pods.client, &port, Seen::is_captured).await?;
    let work = async {
        with_setting(ground, agent, &GREET_PORT.to_string()).await?;
        ground.until("direct by the new setting", &pods.client, &port, in_clear).await
    };
    let load = (pods.server.addr(APP_PORT), &[][..]);
    let (_, answers) = ground.under_load(&pods.client, load, work).await?;
    expect_whole(&answers)?;
    let seen = ground.exchange(&pods.client, &Target::pod(&pods.server)).await?;
    expect("another port goes through the tunnel", seen, Seen::is_captured)?;
    let work = async {
        ground.undo().await?;
        agent.until_rolled_out(&ground.cluster, 2 * START).await
    };
    let ((), answers) = ground.under_load(&pods.client, load, work).await?;
    expect_whole(&answers)?;
    ground.until("captured again", &pods.client, &port, Seen::is_captured).await.map(drop)
}

/// In clear text; the load beside it uses the tunnel.
fn in_clear(seen: &Seen) -> bool {
    seen.is_answered() && seen.wire.marker > 0
}

/// Gives the agents a setting, until changes are taken back, and waits until all have it.
async fn with_setting(ground: &Ground, agent: &Part, value: &str) -> anyhow::Result<()> {
    let set = ground.cluster.get(&agent.path()).await?;
    let before = set["spec"]["template"]["spec"]["containers"].clone();
    let mut after = before.clone();
    let env = after[0]["env"].as_array_mut().context("an agent without settings")?;
    env.retain(|one| one["name"] != SETTING);
    env.push(json!({"name": SETTING, "value": value}));
    let patch = |all: Value| json!({"spec": {"template": {"spec": {"containers": all}}}});
    ground.change(&agent.path(), &patch(after), patch(before)).await?;
    agent.until_rolled_out(&ground.cluster, 2 * START).await
}

async fn outside(ground: &Ground) -> anyhow::Result<()> {
    ours(ground)?;
    ground.may_disturb()?;
    let (agent, ztunnel) = (ground.parts.agent()?, ground.parts.ztunnel()?);
    let pods = ground.captured_couple("outside", Distance::CrossNode).await?;
    let near = ground.spec(&pods.namespace, "near", 1)?.label(MODE_LABEL, "ambient");
    let near = ground.pod(&near).await?;
    let door = Door::of(ground, 2).await?;
    // As docs/kubernetes.md says: first the agent, then what is left of it, then ztunnel.
    for node in ground.nodes.iter().filter(|node| node.name != door.hand.node) {
        let path = format!("{}/{}", paths::NODES, node.name);
        let label = |value: Value| json!({"metadata": {"labels": {INSIDE: value}}});
        ground.change(&path, &label(json!("true")), label(Value::Null)).await?;
    }
    keep_inside(ground, agent, &door.hand.node).await?;
    leave(ground, agent, &door.hand.node).await?;
    keep_inside(ground, ztunnel, &door.hand.node).await?;
    untouched(ground, &door).await?;
    let far = &pods.server;
    ground.until_redirection(far, None).await?;
    ground.until_direct(far, &near).await?;
    let late = ground.spec(&pods.namespace, "late", 2)?.label(MODE_LABEL, "ambient");
    let late = ground.pod(&late).await?;
    ground.until_direct(&late, &near).await?;
    ground.expect_redirection(&late, None).await?;
    untouched(ground, &door).await?;
    ground.until_captured(&pods.client, &near).await?;
    ground.undo().await?;
    for pod in [far, &late] {
        is_captured(ground, pod, &near).await?;
    }
    Ok(())
}

/// The part's pods stay on nodes with the label, until changes are taken back.
async fn keep_inside(ground: &Ground, part: &Part, outside: &str) -> anyhow::Result<()> {
    keep_to(ground, part, INSIDE, outside).await?;
    part.until_rolled_out(&ground.cluster, 2 * START).await
}

/// Runs the agent's image once, as it runs there, with the word that removes everything.
async fn leave(ground: &Ground, agent: &Part, node: &str) -> anyhow::Result<()> {
    let set = ground.cluster.get(&agent.path()).await?;
    let mut spec = set["spec"]["template"]["spec"].clone();
    spec["nodeName"] = json!(node);
    spec["restartPolicy"] = json!("Never");
    let container = &mut spec["containers"][0];
    let program = container["command"][0].clone();
    container["command"] = json!([program, "uninstall", "--drain"]);
    for key in ["readinessProbe", "livenessProbe", "ports"] {
        container[key] = Value::Null;
    }
    spec["nodeSelector"] = Value::Null;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": LEAVE}, "spec": spec});
    let path = paths::pod(&agent.namespace, LEAVE);
    ground.cluster.create(&paths::core(&agent.namespace, "pods"), &pod).await?;
    let over = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    let ended = ground.cluster.wait(&path, "the node is left", START, over).await;
    let said = ground.cluster.logs(&agent.namespace, LEAVE, None, 100).await;
    ground.cluster.delete(&path).await?;
    ground.cluster.wait_gone(&path, START).await?;
    ended.with_context(|| said.unwrap_or_default()).map(drop)
}

/// Neither list nor rules of the mesh on the node.
async fn untouched(ground: &Ground, door: &Door) -> anyhow::Result<()> {
    let lists: Lists = door.hand.ask(ground, &["lists", &door.lists]).await?;
    let plugin = door.program.rsplit('/').next().unwrap_or_default();
    let calling = lists.files.iter().filter(|(_, text)| text.contains(plugin));
    let calling: Vec<_> = calling.map(|(name, _)| name.clone()).collect();
    expect("no list that calls the plugin", calling.join(", "), String::is_empty)?;
    let tables = door.hand.nft(ground, &["list", "tables"]).await?;
    expect("no table of the mesh", tables, |tables| !tables.contains("sluice"))
}

async fn fresh(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let taint = agent.setting(&ground.cluster, "STARTUP_TAINT").await?;
    let taint = taint.filter(|taint| !taint.is_empty()).ok_or_else(|| {
        Skip("needs agents that remove a taint of new nodes (nodeAgent.startupTaint)".to_owned())
    })?;
    let namespace = ground.namespace("fresh", &[]).await?;
    let server = captured_server(ground, &namespace, 1).await?;
    let door = Door::of(ground, 2).await?;
    let run = agent.setting(&ground.cluster, "RUN_DIR").await?;
    let run = run.filter(|run| !run.is_empty()).ok_or_else(|| {
        Skip("needs agents that say where they keep their files (RUN_DIR)".to_owned())
    })?;
    send_away(ground, agent, &door.hand.node).await?;
    closed(ground, &door.hand.node, &taint).await?;
    door.hand.act(ground, &["remove", &door.own, &door.program, &run]).await?;
    untouched_list(ground, &door).await?;
    let marker = fresh_marker();
    let seen = watched(ground, &server, &marker, async {
        for number in 0..QUEUED {
            let spec = asking_first(ground, &namespace, (&queued(number), 2), &server, &marker)?;
            ground.cluster.create_pod(&spec).await?;
        }
        let selector = json!({"spec": {"template": {"spec": {"nodeSelector": {AWAY: null}}}}});
        ground.cluster.merge_patch(&agent.path(), &selector).await?;
        for number in 0..QUEUED {
            ground.cluster.wait_ready(&namespace, &queued(number), 2 * START).await?;
        }
        Ok(())
    });
    expect_unread(seen.await?)?;
    for number in 0..QUEUED {
        becomes_captured(ground, (&namespace, &queued(number)), &server).await?;
    }
    Ok(())
}

fn queued(number: usize) -> String {
    format!("queued-{number}")
}

async fn untouched_list(ground: &Ground, door: &Door) -> anyhow::Result<()> {
    let own = door.hand.read(ground, &door.own).await?;
    expect("a node without the mesh's list", own.text, String::is_empty)
}

/// The node takes pods only once the taint is gone, as when it has just joined.
async fn closed(ground: &Ground, node: &str, taint: &str) -> anyhow::Result<()> {
    let path = format!("{}/{node}", paths::NODES);
    let object = ground.cluster.get(&path).await?;
    let before = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let mut after = before.clone();
    after.push(json!({"key": taint, "effect": "NoSchedule"}));
    let taints = |all: Vec<Value>| json!({"spec": {"taints": all}});
    ground.change(&path, &taints(after), taints(before)).await
}
