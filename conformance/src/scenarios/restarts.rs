//! Parts that are killed while they act, and come back. What once went through the tunnel
//! never goes out in clear text.

use std::time::Duration;

use lab::{Part, Pod};

use super::faults::part;
use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, MODE_LABEL, REDIRECTION, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "agent-killed-while-it-captures",
            "an agent killed at any moment after the label captures the pod when it is back",
            killed_while_it_captures
        ),
        scenario!(
            "agent-killed-while-it-releases",
            "an agent killed at any moment after the label is gone lets the pod go when it is back",
            killed_while_it_releases
        ),
        scenario!(
            "agent-killed-during-add",
            "a pod that starts while the agent dies is tried again and then captured",
            killed_during_add
        ),
        scenario!(
            "agent-and-ztunnel-killed",
            "with both killed a captured pod is refused, and heals whoever comes back first",
            both_killed
        ),
        scenario!(
            "agent-restart-disturbs-nobody",
            "six captured pods and a long connection do not notice that the agent restarts",
            restart_disturbs_nobody
        ),
        scenario!(
            "rules-replaced-under-traffic",
            "a proxied connection lives on, out of sight, while damaged rules are replaced",
            rules_replaced
        ),
    ]
}

/// Moments after the change of a label, in the middle of the agent's steps.
const MOMENTS: [u64; 5] = [0, 15, 40, 90, 250];

async fn killed_while_it_captures(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("midway").await?;
    let agent = part(world.lab.node(1).agent())?;
    for moment in MOMENTS {
        let name = format!("client-{moment}");
        let client = world.pod(in_namespace("midway", &name, 1)).await?;
        world.lab.kube().label_pod("midway", &name, MODE_LABEL, Some("ambient")).await?;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill().await?;
        agent.start().await?;
        let mut was_tunnelled = false;
        let deadline = tokio::time::Instant::now() + world.patience;
        while !is_advertised(world, &client).await? {
            let seen = exchange(world, &client, &server).await?;
            expect("no clear text after the tunnel", &seen, |seen| {
                !was_tunnelled || seen.marker == 0
            })?;
            was_tunnelled |= seen.is_tunnelled();
            expect("captured in time", &name, |_| tokio::time::Instant::now() < deadline)?;
        }
        agent.ready().await?;
        observe::tunnelled(world, &client, &server).await?;
    }
    Ok(())
}

async fn is_advertised(world: &World, pod: &Pod) -> anyhow::Result<bool> {
    let object = world.lab.kube().pod(pod.namespace(), pod.name()).await?;
    Ok(object["metadata"]["annotations"][REDIRECTION] == "enabled")
}

async fn killed_while_it_releases(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("letting").await?;
    let agent = part(world.lab.node(1).agent())?;
    world.may_speak_openly(&pods.client).await?;
    world.lab.kube().label_pod("letting", "client", MODE_LABEL, None).await?;
    world.until_redirection(&pods.client, None).await?;
    agent.kill().await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("still the tunnel, as the rules are there", &seen, |seen| seen.is_tunnelled())?;
    agent.start().await?;
    agent.ready().await?;
    observe::until_empty(world, &pods.client).await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("clear text again", &seen, |seen| seen.is_plain())
}

async fn killed_during_add(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("adding").await?;
    let agent = part(world.lab.node(1).agent())?;
    for moment in MOMENTS {
        let spec = in_namespace("adding", &format!("client-{moment}"), 1);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(moment)).await;
            agent.kill().await?;
            agent.start().await
        };
        let (client, killed) = tokio::join!(world.pod(spec.label(MODE_LABEL, "ambient")), kill);
        killed?;
        let client = client?;
        expect("rules as the pod starts", observe::residue(&client).await?, |text| {
            text.contains("redirect to :15001")
        })?;
        agent.ready().await?;
        world.until_redirection(&client, Some("enabled")).await?;
        observe::tunnelled(world, &client, &server).await?;
    }
    Ok(())
}

async fn both_killed(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("bothdead").await?;
    let node = world.lab.node(1);
    let (agent, ztunnel) = (part(node.agent())?, part(node.ztunnel())?);
    for [first, second] in [[agent, ztunnel], [ztunnel, agent]] {
        second.kill().await?;
        first.kill().await?;
        refused(world, &pods).await?;
        first.start().await?;
        refused(world, &pods).await?;
        second.start().await?;
        healed(world, &pods, &[first, second]).await?;
    }
    Ok(())
}

async fn refused(world: &World, pods: &Couple) -> anyhow::Result<()> {
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("refused, nothing in clear text", &seen, |seen| seen.is_refused())
}

async fn healed(world: &World, pods: &Couple, parts: &[&Part]) -> anyhow::Result<()> {
    for part in parts {
        part.ready().await?;
    }
    let deadline = tokio::time::Instant::now() + world.patience;
    loop {
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("nothing in clear text", &seen, |seen| seen.marker == 0)?;
        if seen.is_tunnelled() {
            return Ok(());
        }
        expect("the tunnel in time", &seen, |_| tokio::time::Instant::now() < deadline)?;
    }
}

async fn restart_disturbs_nobody(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("steady").await?;
    let mut others = Vec::new();
    for number in 0..5 {
        let spec = in_namespace("steady", &format!("more-{number}"), 1);
        others.push(world.pod(spec.label(MODE_LABEL, "ambient")).await?);
    }
    for other in &others {
        world.until_redirection(other, Some("enabled")).await?;
    }
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let agent = part(world.lab.node(1).agent())?;
    for _ in 0..2 {
        agent.restart().await?;
        talk.send_line("after a restart").await?;
        for other in others.iter().chain([&pods.client]) {
            let seen = exchange(world, other, &pods.server).await?;
            expect("the tunnel at once", &seen, |seen| seen.is_tunnelled())?;
        }
    }
    let reply = talk.send_line("after all").await?;
    expect("the same connection", reply.number, |number| *number == 4)
}

async fn rules_replaced(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("replaced").await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let sniffer = world.lab.sniff_wire(1).await?;
    for round in 0..3 {
        let window = sniffer.window().await?;
        let damage = ["nft", "flush", "chain", "inet", "sluice", "guard_out_syn"];
        expect("a damaged chain", pods.client.run(&damage).await?.stderr, String::is_empty)?;
        let repaired = lab::eventually("the chain is back", world.patience, || async {
            pods.client.check().await.ok()
        });
        repaired.await?;
        let marker = format!("replaced-marker-{round}-end");
        talk.send_line(&marker).await?;
        let observed = window.close().await?;
        expect("no marker on the wire", observed.marker(marker.as_bytes()), |count| *count == 0)?;
    }
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 5)
}
