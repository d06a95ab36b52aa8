//! Malformed things affect only themselves.

use serde_json::json;

use crate::observe::{self, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::policy::{apply, remove};
use crate::world::{MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("odd-label", "an unknown value of the label does not capture", odd_label),
        scenario!("odd-policy", "a policy that makes no sense leaves others in force", odd_policy),
        scenario!(
            "garbage-on-the-sockets",
            "garbage on the agent's sockets and on port 15008 changes nothing",
            garbage
        ),
    ]
}

async fn odd_label(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("odd").await?;
    world.lab.kube().label_pod("odd", "client", MODE_LABEL, Some("ambientt")).await?;
    // The agent handles changes in order: once the server is captured, the client's label
    // has been seen.
    world.enrol(&pods.server).await?;
    let seen = until(world, "an answer", &pods.client, &pods.server, |s| s.reply.is_ok()).await?;
    expect("not captured", &seen, |seen| seen.is_plain())
}

async fn odd_policy(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("oddities").await?;
    let nobody = json!({"from": [{"source": {"principals": ["*"]}}]});
    apply(world, "oddities", "nobody", "DENY", &[nobody]).await?;
    observe::refused(world, &pods.client, &pods.server).await?;
    let odd = json!({"to": [{"operation": {"ports": ["not-a-port"]}}]});
    // Refused by the API server, or taken by it and rejected by the control plane: both
    // are fine, as long as nothing else changes.
    let taken = apply(world, "oddities", "odd", "DENY", &[odd]).await.is_ok();
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the good policy in force", &seen, |seen| seen.is_refused())?;
    remove(world, "oddities", "nobody").await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    if taken {
        remove(world, "oddities", "odd").await?;
    }
    Ok(())
}

async fn garbage(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("noise").await?;
    let outside = world.pod(in_namespace("noise", "outside", 1)).await?;
    for _ in 0..5 {
        let mut talk = outside.connect(pods.server.addr(15008)).await?;
        let answer = talk.send_line("GET / HTTP/1.1").await;
        expect("no answer to plain text on 15008", format!("{answer:?}"), |_| answer.is_err())?;
    }
    let plugin_socket = world.lab.node(1).agent_folder().join("plugin.sock");
    send_garbage(&plugin_socket).await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the tunnel as before", &seen, |seen| seen.is_tunnelled())?;
    let late = world.pod(in_namespace("noise", "late", 1).label(MODE_LABEL, "ambient")).await?;
    world.until_redirection(&late, Some("enabled")).await
}

/// Text, a frame that claims four gigabytes, and a frame cut short.
async fn send_garbage(socket: &std::path::Path) -> anyhow::Result<()> {
    use tokio::io::AsyncWriteExt;
    for bytes in [&b"hello, agent\n"[..], &[0xff; 8], &[0, 0, 0, 9, b'{']] {
        let mut stream = tokio::net::UnixStream::connect(socket).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
    }
    Ok(())
}
