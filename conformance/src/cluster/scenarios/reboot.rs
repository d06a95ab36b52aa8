//! A node loses its power and comes back. Only where somebody can do that to a node.

use std::time::Duration;

use lab::cluster::access::user_command;

use crate::cluster::exchange::Target;
use crate::cluster::ground::{Ground, START};
use crate::cluster::pods::{APP_PORT, Distance, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect};

/// How long the command may take; it need not wait until the node is ready.
const REBOOT: Duration = Duration::from_secs(300);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "node-reboots",
        &[45],
        "a node loses its power: its labelled pods start again captured, from their first word on",
        node_reboots
    )]
}

async fn node_reboots(ground: &Ground) -> anyhow::Result<()> {
    let power = ground.reboot.as_ref();
    let power = power.ok_or_else(|| {
        Skip("cuts a node's power: asked for with --including-reboot COMMAND".to_owned())
    })?;
    let pods = ground.captured_couple("reboot", Distance::CrossNode).await?;
    let node = pods.server.node.clone();
    let line = format!("NODE={node}; {}", power.line);
    let ran = user_command(&line, &power.kubeconfig, REBOOT).await?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    expect(&format!("`{line}` succeeds"), said, |_| ran.ok())?;
    ground.observers().await?.ready_again(ground, &node).await?;
    let server = started_again(ground, &pods.server).await?;
    // The first thing that it says, not what it says after a while. (Others learn its new address
    // from the control plane, which may have been on the node as well.)
    let seen = ground.exchange(&server, &Target::pod(&pods.client)).await?;
    expect("nothing in clear text from the first word on", &seen, |seen| !seen.is_direct())?;
    ground.until_captured(&server, &pods.client).await?;
    ground.until_captured(&pods.client, &server).await?;
    ground.expect_redirection(&server, Some("enabled")).await
}

/// The same pod, in a sandbox that was made after the node came back.
async fn started_again(ground: &Ground, pod: &TestPod) -> anyhow::Result<TestPod> {
    let again = |object: &serde_json::Value| {
        let container = &object["status"]["containerStatuses"][0];
        container["restartCount"].as_u64() > Some(0) && container["ready"] == true
    };
    ground.cluster.wait(&pod.path(), "started again after the reboot", 2 * START, again).await?;
    let now = ground.running(&pod.namespace, &pod.name).await?;
    let observed = format!("{} and {}, port {APP_PORT}", pod.uid, now.uid);
    expect("it is the same pod", observed, |_| pod.uid == now.uid)?;
    Ok(now)
}
