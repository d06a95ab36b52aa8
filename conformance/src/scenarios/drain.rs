//! Connections at the end of a ztunnel: those that it has not taken yet, and those that it
//! does not let go of in time.

use super::faults::part;
use super::handover::pod_of;
use crate::observe::{Seen, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, World, in_namespace};

/// Clients that give up while there is no ztunnel.
const CLIENTS: usize = 40;
/// Clients that come when there is one again.
const LATER: usize = 10;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "gone-while-queued",
            "for clients that gave up while there was no ztunnel nobody is dialled",
            gone_while_queued
        ),
        scenario!(
            "drain-names-what-it-cuts",
            "a ztunnel that is told to stop names the connections that outlive its drain",
            survivors_named
        ),
    ]
}

/// From the client's application to its own ztunnel, and in clear text to the server's.
async fn gone_while_queued(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("impatient").await?;
    let outside = world.pod(in_namespace("impatient", "outside", 1)).await?;
    until(world, "outside served", &outside, &pods.server, Seen::is_plain).await?;
    let to = pods.server.addr(APP_PORT);
    for (node, client) in [(1, &pods.client), (2, &outside)] {
        let ztunnel = part(world.lab.node(node).ztunnel())?;
        ztunnel.kill().await?;
        let before = pods.app.connections();
        for _ in 0..CLIENTS {
            client.connect(to).await?.tear()?;
        }
        // Behind them in the same queue.
        let mut patient = client.connect(to).await?;
        ztunnel.start().await?;
        patient.send_line("still here").await?;
        ztunnel.ready().await?;
        for _ in 0..LATER {
            client.exchange(to, "later").await?;
        }
        let dialled = pods.app.connections() - before;
        expect("only those who waited at the server", dialled, |count| *count == 1 + LATER)?;
    }
    Ok(())
}

async fn survivors_named(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("overdue").await?;
    for node in [1, 2] {
        let node = world.lab.node(node);
        let (old, new) = (part(node.ztunnel())?, part(node.next_ztunnel())?);
        let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
        talk.send_line("before").await?;
        let said_before = old.log_text().len();
        new.start().await?;
        new.ready().await?;
        old.stop().await?;
        talk.end().await?;
        let said = old.log_text().split_off(said_before);
        let pod = format!("overdue/{}", pod_of(&pods, node).name());
        // Of the client the far side knows the address only.
        let from = match node.number() {
            1 => talk.local().to_string(),
            _ => pods.client.ip().to_string(),
        };
        let words = [pod, from, pods.server.addr(APP_PORT).to_string()];
        let named = said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        expect(&format!("a line that names {words:?}"), said, |_| named)?;
        old.start().await?;
        old.ready().await?;
        new.stop().await?;
    }
    Ok(())
}
