//! What pods want otherwise, and what the mesh says about them.

use serde_json::{Value, json};

use crate::cluster::exchange::{Seen, Target, expect_whole};
use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::patience::eventually;
use crate::cluster::pods::{APP_PORT, Distance, GREET_PORT, MODE_LABEL};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{NotImplemented, expect};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "excluded-port-of-a-running-pod",
            &[12, 29],
            "an excluded port is direct and no other, and captured again when it is taken back",
            excluded
        ),
        scenario!(
            "older-connections-live-on",
            &[25],
            "a connection that was open before the label goes on, also when the label goes",
            older
        ),
        scenario!(
            "sidecar-is-left-alone",
            &[30],
            "a labelled pod that has a sidecar is not captured",
            sidecar
        ),
        scenario!(
            "status-agrees-with-the-packets",
            &[71],
            "annotation, Event and node condition say what the packets show",
            status
        ),
    ]
}

/// Whether the mesh is the one whose own names these are.
pub(super) fn ours(ground: &Ground) -> anyhow::Result<()> {
    let parts = &ground.parts;
    if parts.hidden || parts.agent()?.name.ends_with("node-agent") {
        return Ok(());
    }
    Err(NotImplemented("a name of Sluice's own, which this mesh does not know".to_owned()).into())
}

async fn excluded(ground: &Ground) -> anyhow::Result<()> {
    ours(ground)?;
    let pods = ground.captured_couple("excluded", Distance::CrossNode).await?;
    let option = |value: Value| {
        let key = "sluice.dev/exclude-outbound-ports";
        json!({"metadata": {"annotations": {key: value}}})
    };
    let path = pods.client.path();
    let words = ["--way", "greeted"];
    let port = Target::via(pods.server.addr(GREET_PORT), &pods.server).more(&words);
    ground.cluster.merge_patch(&path, &option(json!(GREET_PORT.to_string()))).await?;
    ground.until("the excluded port is direct", &pods.client, &port, Seen::is_direct).await?;
    let seen = ground.exchange(&pods.client, &Target::pod(&pods.server)).await?;
    expect("another port goes through the tunnel", seen, Seen::is_captured)?;
    ground.cluster.merge_patch(&path, &option(Value::Null)).await?;
    ground.until("captured again", &pods.client, &port, Seen::is_captured).await.map(drop)
}

async fn older(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.couple("older", Distance::CrossNode, &[]).await?;
    ground.until_direct(&pods.client, &pods.server).await?;
    let work = async {
        ground.set_mode(&pods.client, Some("ambient")).await?;
        ground.set_mode(&pods.server, Some("ambient")).await?;
        ground
            .until("new ones are captured", &pods.client, &Target::pod(&pods.server), |seen| {
                seen.is_answered() && seen.wire.tunnel > 0 && seen.wire.marker == 0
            })
            .await?;
        ground.set_mode(&pods.client, None).await?;
        ground.set_mode(&pods.server, None).await
    };
    let to = pods.server.addr(APP_PORT);
    let ((), answers) = ground.under_load(&pods.client, (to, &["--way", "kept"]), work).await?;
    expect_whole(&answers)
}

async fn sidecar(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("sidecar", Distance::SameNode).await?;
    let with = ground.spec(&pods.namespace, "with", 1)?.label(MODE_LABEL, "ambient");
    let with = ground.pod(&with.annotation("sidecar.istio.io/status", "{}")).await?;
    ground.until_direct(&pods.client, &with).await?;
    ground.expect_redirection(&with, None).await
}

async fn status(ground: &Ground) -> anyhow::Result<()> {
    ours(ground)?;
    let pods = ground.captured_couple("status", Distance::CrossNode).await?;
    for pod in [&pods.client, &pods.server] {
        let observed =
            |object: &Value| object["metadata"]["annotations"]["sluice.dev/observed"] == "captured";
        let path = pod.path();
        ground.cluster.wait(&path, "sluice.dev/observed=captured", PATIENCE, observed).await?;
        let told =
            async || ground.cluster.events_of(&path).await.contains(" Captured").then_some(());
        eventually("an Event Captured", PATIENCE, told).await?;
        let node = ground.cluster.get(&format!("/api/v1/nodes/{}", pod.node)).await?;
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|one| one["type"] == "SluiceReady");
        let said = format!("{}", ready.unwrap_or(&Value::Null)["status"]);
        expect("the node's condition SluiceReady is True", said, |said| said == "\"True\"")?;
    }
    Ok(())
}
