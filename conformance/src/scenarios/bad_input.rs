//! Malformed things affect only themselves.

use lab::Part;
use serde_json::{Value, json};

use crate::observe::{self, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::policy;
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("odd-label", "an unknown value of the label does not capture", odd_label),
        scenario!(
            "malformed-policy-denies",
            "a policy that cannot be read denies what it selects, by its name, until corrected",
            malformed_policy
        ),
        scenario!(
            "malformed-update-changes-nothing",
            "of a policy that can no longer be read the last good version stays in force",
            malformed_update
        ),
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

/// A range that the API server takes for a text, and that is none.
const NO_RANGE: &str = "10.0.0.0/33";

async fn malformed_policy(world: &World) -> anyhow::Result<()> {
    let client = world.pod(in_namespace("mangled", "client", 1)).await?;
    let server = in_namespace("mangled", "server", 2).label("app", "server");
    let (server, other) =
        (world.pod(server).await?, world.pod(in_namespace("mangled", "other", 2)).await?);
    let _apps = (server.serve(APP_PORT).await?, other.serve(APP_PORT).await?);
    for pod in [&client, &server, &other] {
        world.enrol(pod).await?;
    }
    observe::tunnelled(world, &client, &server).await?;
    observe::tunnelled(world, &client, &other).await?;
    let selector = json!({"matchLabels": {"app": "server"}});
    let rules = |source: &Value| json!([{"from": [{"source": source}]}]);
    // Meant to let somebody in, and it lets nobody in, as long as nobody knows whom.
    let spec = json!({"selector": selector, "rules": rules(&json!({"ipBlocks": [NO_RANGE]}))});
    let policy = policy::create(world, "mangled", "misspelt", &spec).await?;
    observe::refused(world, &client, &server).await?;
    let seen = exchange(world, &client, &other).await?;
    expect("who is not selected served", &seen, |seen| seen.is_tunnelled())?;
    let log = world.lab.node(2).ztunnel().map(Part::log_text).unwrap_or_default();
    let from = client.ip().to_string();
    let said = log.lines().any(|line| line.contains("mangled/misspelt") && line.contains(&from));
    expect("a line about the client that names the policy", said, |said| *said)?;
    let corrected = json!({"spec": {"rules": rules(&json!({"namespaces": ["mangled"]}))}});
    world.lab.kube().merge_patch(&policy, &corrected).await?;
    observe::tunnelled(world, &client, &server).await?;
    policy::remove(world, "mangled", "misspelt").await
}

async fn malformed_update(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("edited").await?;
    let mut clients = Vec::new();
    for name in ["first", "second"] {
        let pod = world.pod(in_namespace("edited", name, 1)).await?;
        world.enrol(&pod).await?;
        observe::tunnelled(world, &pod, &pods.server).await?;
        clients.push(pod);
    }
    let denies = |name: &str| {
        let principal = format!("cluster.local/ns/edited/sa/{name}");
        json!({"action": "DENY", "rules": [{"from": [{"source": {"principals": [principal]}}]}]})
    };
    let policy = policy::create(world, "edited", "kept", &denies("first")).await?;
    observe::refused(world, &clients[0], &pods.server).await?;
    let mangled = json!({"spec": {"rules": [{"from": [{"source": {"ipBlocks": [NO_RANGE]}}]}]}});
    world.lab.kube().merge_patch(&policy, &mangled).await?;
    // Policies are seen in the order of their changes: with this one in force, that one is.
    policy::create(world, "edited", "later", &denies("second")).await?;
    observe::refused(world, &clients[1], &pods.server).await?;
    let seen = exchange(world, &clients[0], &pods.server).await?;
    expect("the last good version in force", &seen, |seen| seen.is_refused())?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("nobody else denied", &seen, |seen| seen.is_tunnelled())?;
    policy::remove(world, "edited", "kept").await?;
    observe::tunnelled(world, &clients[0], &pods.server).await?;
    policy::remove(world, "edited", "later").await
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
