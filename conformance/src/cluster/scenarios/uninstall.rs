//! The end of the mesh on a cluster. Last of all: nothing is captured afterwards.

use std::time::Duration;

use lab::cluster::access::{paths, user_command};

use crate::cluster::ground::{Ground, START};
use crate::cluster::pods::{Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect};

/// How long the command may take: it waits for pods on all nodes.
const REMOVAL: Duration = Duration::from_secs(300);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "uninstall-leaves-nothing",
        &[69],
        "with the mesh removed captured pods talk in clear text without a restart, nodes are free",
        uninstall
    )]
}

async fn uninstall(ground: &Ground) -> anyhow::Result<()> {
    let removal = ground.removal.as_ref();
    let removal = removal.ok_or_else(|| {
        Skip("removes the mesh: asked for with --including-uninstall COMMAND".to_owned())
    })?;
    let pods = ground.captured_couple("uninstall", Distance::CrossNode).await?;
    let ran = user_command(&removal.line, &removal.kubeconfig, REMOVAL).await?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    expect(&format!("`{}` succeeds", removal.line), said, |_| ran.ok())?;
    for part in ground.parts.all() {
        ground.cluster.wait_gone(&part.path(), START).await?;
    }
    for pod in [&pods.client, &pods.server] {
        ground.until_redirection(pod, None).await?;
    }
    ground.until_direct(&pods.client, &pods.server).await?;
    for pod in [&pods.client, &pods.server] {
        never_restarted(ground, pod).await?;
        ground.cluster.delete(&pod.path()).await?;
        ground.cluster.wait_gone(&pod.path(), START).await?;
    }
    // The runtime does not ask for us any more.
    let late = ground.spec(&pods.namespace, "late", 1)?.label(MODE_LABEL, "ambient");
    let late = ground.pod(&late).await?;
    ground.expect_redirection(&late, None).await?;
    nodes_are_free(ground).await
}

async fn never_restarted(ground: &Ground, pod: &TestPod) -> anyhow::Result<()> {
    let object = ground.cluster.get(&pod.path()).await?;
    let same = object["metadata"]["uid"].as_str() == Some(&pod.uid);
    let restarts = &object["status"]["containerStatuses"][0]["restartCount"];
    let observed = format!("{}: {restarts} restarts", pod.name);
    expect("the same pod, not restarted", observed, |_| same && *restarts == 0)
}

/// Observers list the tables of the nodes' own networks, and the node objects are looked at.
async fn nodes_are_free(ground: &Ground) -> anyhow::Result<()> {
    for node in ground.nodes.iter().take(2) {
        let observer = ground.observers().await?.as_asker(ground, &node.name).await?;
        let list = ["nft", "list", "tables"];
        let limit = Duration::from_secs(30);
        let ran = ground.cluster.run(&observer.namespace, &observer.name, &list, limit).await?;
        expect("no table of ours on the node", format!("{}{}", ran.stdout, ran.stderr), |said| {
            ran.ok() && !said.contains("sluice")
        })?;
        let object = ground.cluster.get(&format!("{}/{}", paths::NODES, node.name)).await?;
        let conditions = object["status"]["conditions"].to_string();
        expect("no condition of ours", conditions, |text| !text.contains("Sluice"))?;
    }
    Ok(())
}
