//! Parts that die, and rules that are tampered with. No clear text at any point.

use std::time::{Duration, Instant};

use crate::observe::{self, Seen, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, HBONE_PORT, MODE_LABEL, World, in_namespace};

/// Shorter than handshakes that nobody finishes may take, longer than a loaded machine
/// makes of milliseconds.
const AT_ONCE: Duration = Duration::from_secs(5);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "ztunnel-killed",
            "without ztunnel a captured pod is refused, never in clear text; then it heals",
            ztunnel_killed
        ),
        scenario!(
            "agent-killed",
            "without the agent captured pods go on; after its return labels work",
            agent_killed
        ),
        scenario!(
            "flood-hurts-one-pod",
            "who floods a captured pod's tunnel port keeps nobody else out of it, nor of others",
            flooded
        ),
        scenario!("pod-deleted", "a deleted pod leaves nothing, its name may come again", deleted),
    ]
}

async fn ztunnel_killed(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("killed").await?;
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    ztunnel.kill().await?;
    for _ in 0..5 {
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("refused, and nothing in clear text", &seen, |seen| seen.is_refused())?;
    }
    ztunnel.start().await?;
    ztunnel.ready().await?;
    until(world, "the tunnel again", &pods.client, &pods.server, |seen| {
        assert_silent(seen);
        seen.is_tunnelled()
    })
    .await?;
    Ok(())
}

/// A marker on the wire during recovery is a leak whatever comes later.
fn assert_silent(seen: &Seen) {
    assert!(seen.marker == 0, "clear text during recovery: {seen}");
}

async fn agent_killed(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("agentless").await?;
    let late = world.pod(in_namespace("agentless", "late", 1)).await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let agent = part(world.lab.node(1).agent())?;
    agent.kill().await?;
    talk.send_line("without the agent").await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the tunnel without the agent", &seen, |seen| seen.is_tunnelled())?;
    agent.start().await?;
    agent.ready().await?;
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 3)?;
    world.enrol(&late).await?;
    observe::tunnelled(world, &late, &pods.server).await
}

/// Connections of one stranger that never say who they are.
const SILENT: usize = 200;

async fn flooded(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("flooded").await?;
    let outside = world.pod(in_namespace("flooded", "outside", 1)).await?;
    let neighbour = world.pod(in_namespace("flooded", "neighbour", 2)).await?;
    let _app = neighbour.serve(APP_PORT).await?;
    // It has never spoken to anybody: its first words need a handshake.
    let late = world.pod(in_namespace("flooded", "late", 1)).await?;
    for pod in [&neighbour, &late] {
        world.enrol(pod).await?;
    }
    observe::tunnelled(world, &pods.client, &neighbour).await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        // Some are turned away, which is what a flood deserves.
        silent.extend(outside.connect(pods.server.addr(HBONE_PORT)).await);
    }
    expect("a flood", silent.len(), |count| *count > SILENT / 8)?;
    for server in [&pods.server, &neighbour] {
        for client in [&pods.client, &late] {
            let begun = Instant::now();
            let seen = exchange(world, client, server).await?;
            expect("served by tunnel", &seen, |seen| seen.is_tunnelled())?;
            let took = format!("{:?}", begun.elapsed());
            expect("at once, as far as this machine can", took, |_| begun.elapsed() < AT_ONCE)?;
        }
    }
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 2)
}

async fn deleted(world: &World) -> anyhow::Result<()> {
    for round in 0..3 {
        let spec = in_namespace("reborn", "same-name", 1).label(MODE_LABEL, "ambient");
        let pod = world.pod(spec).await?;
        world.until_redirection(&pod, Some("enabled")).await?;
        let rules = observe::residue(&pod).await?;
        expect(&format!("captured in round {round}"), rules, |text| text.contains("15001"))?;
        drop(pod);
        world.clear().await?;
    }
    Ok(())
}

/// What is killed here must be there.
pub(super) fn part(part: Option<&lab::Part>) -> anyhow::Result<&lab::Part> {
    part.ok_or_else(|| anyhow::anyhow!("the lab runs without an implementation"))
}
