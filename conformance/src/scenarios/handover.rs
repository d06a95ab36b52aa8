//! ztunnels that are killed, replaced and upgraded while pods connect. The listeners are
//! the agent's: connections wait for the next ztunnel.

use futures_util::future::{join_all, try_join_all};
use lab::{AppErrorKind, Conversation, Node, Part, Pod};
use tokio::time::Instant;

use super::faults::part;
use crate::load::{self, Load};
use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, HBONE_PORT, World};

/// Clients that wait while there is no ztunnel.
const CLIENTS: usize = 40;
const OUTBOUND_PORT: u16 = 15001;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "killed-ztunnel-turns-nobody-away",
            "who connects while ztunnel is dead waits for the next one, through the tunnel",
            nobody_is_turned_away
        ),
        scenario!(
            "ztunnel-killed-under-load",
            "no connection that begins after ztunnel was killed fails, nor is one in clear text",
            killed_under_load
        ),
        scenario!(
            "ztunnel-upgrade-loses-nothing",
            "two ztunnels at once under load: no connection fails, the old one ends in time",
            upgrade
        ),
        scenario!(
            "hold-time-over",
            "without a next ztunnel connections are reset in time and never in clear text",
            hold_time_over
        ),
        scenario!(
            "agent-restart-regains-listeners",
            "a restarted agent holds the very sockets that it held before",
            listeners_regained
        ),
        scenario!(
            "ztunnel-that-binds-itself",
            "a ztunnel of version 1 works, and can be upgraded and rolled back",
            binds_itself
        ),
    ]
}

async fn nobody_is_turned_away(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("patient").await?;
    for node in [1, 2] {
        let ztunnel = part(world.lab.node(node).ztunnel())?;
        ztunnel.kill().await?;
        let sniffer = world.lab.sniff_wire(1).await?;
        let window = sniffer.window().await?;
        let to = pods.server.addr(APP_PORT);
        let clients = try_join_all((0..CLIENTS).map(|_| pods.client.connect(to)));
        let mut clients = clients.await?;
        let marker = format!("patient-marker-{node}-end");
        let answers = join_all(clients.iter_mut().map(|client| client.send_line(&marker)));
        let (answers, started) = tokio::join!(answers, ztunnel.start());
        started?;
        for answer in answers {
            expect("an answer", format!("{answer:?}"), |_| answer.is_ok())?;
        }
        let seen = window.close().await?;
        expect("nothing in clear text", seen.marker(marker.as_bytes()), |count| *count == 0)?;
        let tunnel = seen.between(pods.client.ips(), pods.server.ips()).tcp_with_port(HBONE_PORT);
        expect("the tunnel", tunnel, |packets| *packets > 0)?;
        ztunnel.ready().await?;
    }
    Ok(())
}

async fn killed_under_load(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("loaded").await?;
    for node in [1, 2] {
        let ztunnel = part(world.lab.node(node).ztunnel())?;
        let marker = format!("loaded-marker-{node}-end");
        let work = Box::pin(async {
            settled(world, &pods).await?;
            ztunnel.kill().await?;
            // What it had accepted has ended with it.
            let killed = Instant::now();
            ztunnel.start().await?;
            ztunnel.ready().await?;
            settled(world, &pods).await?;
            Ok(killed)
        });
        let (killed, load) = watched(world, &pods, &marker, work).await?;
        expect("all of them answered after the kill", load.since(killed), Load::is_whole)?;
    }
    Ok(())
}

async fn upgrade(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("upgraded").await?;
    for node in [1, 2] {
        let node = world.lab.node(node);
        let (old, new) = (part(node.ztunnel())?, part(node.next_ztunnel())?);
        let before = inodes(pod_of(&pods, node)).await?;
        // There and back, so that the next scenario finds what this one found.
        for [old, new] in [[old, new], [new, old]] {
            let marker = format!("upgraded-marker-{}-end", node.name());
            let work = Box::pin(async {
                let talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
                settled(world, &pods).await?;
                replace(old, new, Some(talk)).await?;
                settled(world, &pods).await
            });
            let ((), load) = watched(world, &pods, &marker, work).await?;
            expect("no connection failed", load, Load::is_whole)?;
        }
        let after = inodes(pod_of(&pods, node)).await?;
        expect("the same listeners", format!("{before:?} {after:?}"), |_| before == after)?;
    }
    Ok(())
}

/// The new one is ready before the old one is told to stop, which then drains and ends. A
/// connection that it carries goes on meanwhile, and is cut in the end.
pub(super) async fn replace(
    old: &Part,
    new: &Part,
    mut talk: Option<Conversation>,
) -> anyhow::Result<()> {
    if let Some(talk) = &mut talk {
        talk.send_line("before").await?;
    }
    new.start().await?;
    new.ready().await?;
    let while_it_drains = async {
        let Some(talk) = &mut talk else { return Ok(()) };
        for _ in 0..10 {
            talk.send_line("the old ztunnel drains").await?;
        }
        talk.end().await.map(drop)
    };
    let (status, talked) = tokio::join!(old.stop(), while_it_drains);
    let status = status?;
    talked?;
    expect("the old one ends in time and in order", status, std::process::ExitStatus::success)
}

async fn hold_time_over(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("held").await?;
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    ztunnel.kill().await?;
    let sniffer = world.lab.sniff_wire(1).await?;
    let window = sniffer.window().await?;
    let mut early = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    is_reset(&early.send_line("held-marker-end").await)?;
    let late = pods.client.exchange(pods.server.addr(APP_PORT), "held-marker-end").await;
    is_reset(&late)?;
    let observed = window.close().await?;
    expect("nothing in clear text", observed.marker(b"held-marker-end"), |count| *count == 0)?;
    ztunnel.start().await?;
    ztunnel.ready().await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

fn is_reset(answer: &Result<lab::Reply, lab::AppError>) -> anyhow::Result<()> {
    let kind = answer.as_ref().err().map(|error| error.kind);
    expect("a reset", format!("{answer:?}"), |_| kind == Some(AppErrorKind::Reset))
}

async fn listeners_regained(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("regained").await?;
    let node = world.lab.node(1);
    let (agent, ztunnel) = (part(node.agent())?, part(node.ztunnel())?);
    let before = inodes(&pods.client).await?;
    expect("one listener", before.len(), |count| *count == 1)?;
    agent.kill().await?;
    agent.start().await?;
    agent.ready().await?;
    // Only what the agent holds is left now.
    ztunnel.kill().await?;
    let held = inodes(&pods.client).await?;
    expect("the same socket", format!("{before:?} {held:?}"), |_| before == held)?;
    let waiting = pods.client.connect(pods.server.addr(APP_PORT)).await;
    ztunnel.start().await?;
    waiting?.send_line("after both").await?;
    ztunnel.ready().await?;
    let after = inodes(&pods.client).await?;
    expect("the same socket", format!("{before:?} {after:?}"), |_| before == after)?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the tunnel", &seen, |seen| seen.is_tunnelled())
}

async fn binds_itself(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("rollback").await?;
    let node = world.lab.node(1);
    let (ztunnel, itself) = (part(node.ztunnel())?, part(node.ztunnel_binding_itself())?);
    let given = inodes(&pods.client).await?;

    // Back to version 1, while the other one is still there.
    silently(world, &pods, Box::pin(replace(ztunnel, itself, None))).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let own = inodes(&pods.client).await?;
    expect("sockets of its own", format!("{given:?} {own:?}"), |_| own != given)?;
    itself.kill().await?;
    expect("the agent holds none", inodes(&pods.client).await?.len(), |count| *count == 0)?;
    itself.start().await?;
    itself.ready().await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;

    // And up again.
    silently(world, &pods, Box::pin(replace(itself, ztunnel, None))).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let shared = inodes(&pods.client).await?;
    ztunnel.kill().await?;
    let held = inodes(&pods.client).await?;
    expect("the agent holds them", format!("{shared:?} {held:?}"), |_| {
        shared == held && held.len() == 1
    })?;
    let waiting = pods.client.connect(pods.server.addr(APP_PORT)).await;
    ztunnel.start().await?;
    waiting?.send_line("it waited").await?;
    ztunnel.ready().await?;
    Ok(())
}

/// Work under load of which nothing may be seen in clear text. Connections may fail: a
/// ztunnel that binds for itself takes those that wait with it.
async fn silently(
    world: &World,
    pods: &Couple,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    watched(world, pods, "rollback-marker-end", work).await?;
    Ok(())
}

/// Work under load, with the wire watched for the load's marker.
async fn watched<T>(
    world: &World,
    pods: &Couple,
    marker: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Load)> {
    let sniffer = world.lab.sniff_wire(1).await?;
    let window = sniffer.window().await?;
    let done = load::during(pods, marker, work).await?;
    let seen = window.close().await?;
    expect("nothing in clear text", seen.marker(marker.as_bytes()), |count| *count == 0)?;
    Ok(done)
}

/// Waits until the load has gone through the tunnel some more times.
async fn settled(world: &World, pods: &Couple) -> anyhow::Result<()> {
    let more = pods.app.connections() + 20;
    lab::eventually("20 more connections", world.patience, || async {
        (pods.app.connections() >= more).then_some(())
    })
    .await?;
    Ok(())
}

fn pod_of<'a>(pods: &'a Couple, node: &Node) -> &'a Pod {
    if pods.client.node() == node.number() { &pods.client } else { &pods.server }
}

/// The sockets that listen for what the pod's application opens.
async fn inodes(pod: &Pod) -> anyhow::Result<Vec<String>> {
    let table = pod.run(&["cat", "/proc/self/net/tcp", "/proc/self/net/tcp6"]).await?.stdout;
    // The fields: number, local address, peer, state (0A listens), ..., inode the tenth.
    let port = format!(":{OUTBOUND_PORT:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == "0A");
    let mut inodes: Vec<_> = listening.map(|row| row[9].to_owned()).collect();
    inodes.sort();
    Ok(inodes)
}
