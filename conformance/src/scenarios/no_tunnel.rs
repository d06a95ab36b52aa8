//! Tunnels that cannot be, or that lead to somebody else: there is no connection then.

use std::sync::Arc;

use lab::{Node, Pod};

use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{Couple, HBONE_PORT, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "no-tunnel-no-connection",
            "where the network lets no tunnel through a connection fails, never in clear text",
            no_tunnel
        ),
        scenario!(
            "tunnel-to-the-wrong-pod",
            "a tunnel that the network leads to another pod of the mesh tells that one nothing",
            wrong_pod
        ),
    ]
}

async fn no_tunnel(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("barred").await?;
    let visitor = visitor(world, "barred").await?;
    let node = world.lab.node(pods.server.node());
    let (family, ip) = (family(&pods.server), pods.server.ip());
    let bar = format!(
        "table inet bar {{ chain in {{ type filter hook forward priority 0; \
         {family} daddr {ip} tcp dport {HBONE_PORT} reject with tcp reset; }}; }}"
    );
    nft(node, &bar).await?;
    let seen = exchange(world, &visitor, &pods.server).await?;
    nft(node, "delete table inet bar").await?;
    expect("a refusal, nothing in clear text", &seen, |seen| seen.is_refused())?;
    observe::tunnelled(world, &visitor, &pods.server).await
}

async fn wrong_pod(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("misled").await?;
    let visitor = visitor(world, "misled").await?;
    let wrong = world.pod(in_namespace("misled", "wrong", pods.server.node())).await?;
    let _app = wrong.serve(crate::world::APP_PORT).await?;
    world.enrol(&wrong).await?;
    // Whose log it is has shown both.
    observe::tunnelled(world, &pods.client, &wrong).await?;
    let node = world.lab.node(wrong.node());
    let (family, ip, to) = (family(&pods.server), pods.server.ip(), wrong.addr(HBONE_PORT));
    let mislead = format!(
        "table inet mislead {{ chain pre {{ type nat hook prerouting priority -100; \
         {family} daddr {ip} tcp dport {HBONE_PORT} dnat {family} to {to}; }}; }}"
    );
    nft(node, &mislead).await?;
    let seen = exchange(world, &visitor, &pods.server).await?;
    nft(node, "delete table inet mislead").await?;
    expect("a refusal", &seen, |seen| seen.is_refused())?;
    // What was written before this is in the log.
    observe::tunnelled(world, &visitor, &wrong).await?;
    let heard = heard(world, &wrong, &pods, &visitor);
    expect("nothing heard by the wrong pod", heard, String::is_empty)?;
    observe::tunnelled(world, &visitor, &pods.server).await
}

/// A captured pod beside the couple's client that has no tunnel to anybody yet.
async fn visitor(world: &World, namespace: &str) -> anyhow::Result<Arc<Pod>> {
    let visitor = world.pod(in_namespace(namespace, "visitor", 1)).await?;
    world.enrol(&visitor).await?;
    Ok(visitor)
}

/// What the ztunnel of the wrong pod logged about a visitor who asked for the right one.
fn heard(world: &World, wrong: &Pod, pods: &Couple, visitor: &Pod) -> String {
    let ztunnel = world.lab.node(wrong.node()).ztunnel();
    let log = ztunnel.map(lab::Part::log_text).unwrap_or_default();
    let (visitor, server) = (visitor.ip().to_string(), pods.server.ip().to_string());
    let lines = log.lines().filter(|line| {
        line.contains("direction=\"inbound\"") && line.contains(&visitor) && line.contains(&server)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn family(pod: &Pod) -> &'static str {
    if pod.ip().is_ipv4() { "ip" } else { "ip6" }
}

async fn nft(node: &Node, rules: &str) -> anyhow::Result<()> {
    let ran = node.run(&["nft", rules]).await?;
    expect("rules on the node", ran.stderr, String::is_empty)
}
