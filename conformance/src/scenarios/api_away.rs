//! What pods of a node see of a Kubernetes API that the node's agent cannot reach: nothing.

use std::net::SocketAddr;

use anyhow::Context;

use super::faults::part;
use crate::observe::{exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "api-away",
        "without the Kubernetes API captured pods stay as they are; what was decided counts later",
        away
    )]
}

async fn away(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("unheard").await?;
    let late = world.pod(in_namespace("unheard", "late", 1)).await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let agent = part(world.lab.node(1).agent())?;
    without_api(world, async {
        pods.client.run(&["nft", "flush", "ruleset"]).await?;
        until(world, "repaired without the API", &pods.client, &pods.server, |seen| {
            seen.is_tunnelled()
        })
        .await?;
        let label = world.lab.kube().label_pod("unheard", "late", MODE_LABEL, Some("ambient"));
        label.await?;
        talk.send_line("without the API").await?;
        for _ in 0..5 {
            let seen = exchange(world, &pods.client, &pods.server).await?;
            expect("the tunnel without the API", &seen, |seen| seen.is_tunnelled())?;
            expect("the agent is ready", agent.is_ready().await, |ready| *ready)?;
        }
        Ok(())
    })
    .await?;
    world.until_redirection(&late, Some("enabled")).await?;
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 3)
}

/// Node 1 cannot reach the API while `work` goes on; connections that say anything are reset.
async fn without_api(
    world: &World,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let api = api_of_nodes(world)?;
    let rules = format!(
        "table inet unheard {{ chain out {{ type filter hook output priority 0; \
         tcp dport {} reject with tcp reset; }}; }}",
        api.port()
    );
    nft(world, &rules).await?;
    let asked = world.lab.node(1).place().http_get(api, "/version").await;
    let done = match asked {
        Ok(_) => Err(anyhow::anyhow!("the API answers node 1 at {api}")),
        Err(_) => Box::pin(work).await,
    };
    // The other scenarios need it, whatever this one has found.
    nft(world, "delete table inet unheard").await?;
    done
}

async fn nft(world: &World, rules: &str) -> anyhow::Result<()> {
    let ran = world.lab.node(1).run(&["nft", rules]).await?;
    expect("rules on the node", ran.stderr, String::is_empty)
}

fn api_of_nodes(world: &World) -> anyhow::Result<SocketAddr> {
    let kubeconfig = std::fs::read(world.lab.folder().join("node-kubeconfig"))?;
    let kubeconfig: serde_json::Value = serde_json::from_slice(&kubeconfig)?;
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    let address = server.and_then(|server| server.strip_prefix("http://")?.parse().ok());
    address.context("the API's address in the nodes' kubeconfig")
}
