//! What the Node object says of the agent on its node.

use lab::eventually;
use serde_json::Value;

use super::faults::part;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::World;

const NODE: &str = "/api/v1/nodes/node1";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "node-condition",
        "the node says whether its agent lets pods in, for what they wait, and since when",
        condition
    )]
}

async fn condition(world: &World) -> anyhow::Result<()> {
    let (agent, ztunnel) = (part(world.lab.node(1).agent())?, part(world.lab.node(1).ztunnel())?);
    let others = others(world).await?;
    let serving = until(world, "True", "AgentServes").await?;

    ztunnel.kill().await?;
    let waiting = until(world, "False", "AgentWaits").await?;
    expect("what is waited for", text(&waiting, "message"), |said| said.contains("ztunnel"))?;
    ztunnel.start().await?;
    let again = until(world, "True", "AgentServes").await?;
    expect("the time of the last change", text(&again, "lastTransitionTime"), |time| {
        *time > text(&serving, "lastTransitionTime")
    })?;

    agent.stop().await?;
    until(world, "Unknown", "AgentStopped").await?;
    // One that cannot start says why.
    let socket = world.lab.node(1).zds_socket();
    std::fs::remove_file(socket)?;
    std::fs::create_dir(socket)?;
    agent.start().await?;
    let failed = until(world, "False", "AgentFailed").await?;
    std::fs::remove_dir(socket)?;
    let named = socket.display().to_string();
    expect("the reason", text(&failed, "message"), |said| said.contains(&named))?;
    eventually("the end of it", world.patience, || async {
        agent.pid().await.is_none().then_some(())
    })
    .await?;
    agent.start().await?;
    agent.ready().await?;
    until(world, "True", "AgentServes").await?;
    expect("the other conditions", self::others(world).await?, |now| *now == others)
}

/// Waits until the condition reads so.
async fn until(world: &World, status: &str, reason: &str) -> anyhow::Result<Value> {
    let what = format!("SluiceReady={status} with reason {reason}");
    let found = eventually(&what, world.patience, || async {
        let conditions = conditions(world).await.ok()?;
        let ours = conditions.into_iter().find(|condition| condition["type"] == "SluiceReady")?;
        (ours["status"] == status && ours["reason"] == reason).then_some(ours)
    });
    Ok(found.await?)
}

async fn others(world: &World) -> anyhow::Result<String> {
    let mut conditions = conditions(world).await?;
    conditions.retain(|condition| condition["type"] != "SluiceReady");
    Ok(serde_json::to_string(&conditions)?)
}

async fn conditions(world: &World) -> anyhow::Result<Vec<Value>> {
    let node = world.lab.kube().get(NODE).await?;
    Ok(node["status"]["conditions"].as_array().cloned().unwrap_or_default())
}

fn text(condition: &Value, key: &str) -> String {
    condition[key].as_str().unwrap_or_default().to_owned()
}
