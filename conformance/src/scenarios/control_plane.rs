//! What pods see of a control plane that is away, and of a ztunnel that asks it for
//! single names. No clear text at any point.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use lab::Node;
use serde_json::json;

use super::faults::part;
use super::handover::replace;
use super::services::{Service, captured, server};
use crate::observe::{self, Seen, exchange, until, until_at};
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::policy;
use crate::world::{APP_PORT, World, in_namespace};

/// Where the ztunnel that asks for single names answers operators, beside the others.
const ON_DEMAND_ADMIN: u16 = 18000;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "control-plane-away",
            "without the control plane pods talk on and policies hold; then news arrive again",
            away
        ),
        scenario!(
            "begun-without-control-plane",
            "a ztunnel that knows nothing yet refuses all, until the control plane is there",
            begun_without
        ),
        scenario!(
            "on-demand",
            "a ztunnel that asks only for what pods dial serves them as one that knows all",
            on_demand
        ),
    ]
}

/// Connections to the control plane are reset, open ones too, while `work` goes on.
async fn without_control_plane<T>(
    world: &World,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let rules = "table inet away { chain in { type filter hook input priority 0; \
                 tcp dport 15012 reject with tcp reset; }; }";
    nft(world, rules).await?;
    let done = Box::pin(work).await;
    // The other scenarios need it, whatever this one has found.
    nft(world, "delete table inet away").await?;
    done
}

async fn nft(world: &World, rules: &str) -> anyhow::Result<()> {
    let ran = world.lab.hub().run(&["nft", rules]).await?;
    expect("rules in the middle of the wire", ran.stderr, String::is_empty)
}

/// How many streams to the control plane a node's ztunnel has lost.
async fn lost_streams(node: &Node) -> anyhow::Result<u64> {
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 15020));
    let text = node.place().http_get(metrics, "/metrics").await?.1;
    let samples =
        text.lines().filter(|line| line.starts_with("istio_xds_connection_terminations_total{"));
    let counts = samples.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
    let counts: Vec<_> = counts.collect::<Result<_, _>>().context("counters are numbers")?;
    Ok(counts.into_iter().sum())
}

async fn away(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("away").await?;
    let denied = captured(world, in_namespace("away", "denied", 1)).await?;
    observe::tunnelled(world, &denied, &pods.server).await?;
    let principal = "cluster.local/ns/away/sa/denied";
    let rules = json!([{"from": [{"source": {"principals": [principal]}}]}]);
    let spec = json!({"action": "DENY", "rules": rules});
    policy::create(world, "away", "one", &spec).await?;
    observe::refused(world, &denied, &pods.server).await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let before = [lost_streams(world.lab.node(1)).await?, lost_streams(world.lab.node(2)).await?];
    let alone = async {
        // News to tell, so that the cut is felt at once.
        let nobody = json!({"action": "DENY", "rules": []});
        policy::create(world, "away", "news", &nobody).await?;
        for (node, before) in world.lab.nodes().iter().zip(before) {
            let noticed = lab::eventually("ztunnel without its stream", world.patience, || async {
                (lost_streams(node).await.ok()? > before).then_some(())
            });
            noticed.await?;
        }
        for _ in 0..5 {
            let seen = exchange(world, &pods.client, &pods.server).await?;
            expect("the tunnel as before", &seen, |seen| seen.is_tunnelled())?;
            let seen = exchange(world, &denied, &pods.server).await?;
            expect("the policy as before", &seen, |seen| seen.is_refused())?;
        }
        let ready = part(world.lab.node(1).ztunnel())?.is_ready().await;
        expect("ready: it can do its work", ready, |ready| *ready)
    };
    without_control_plane(world, alone).await?;
    for name in ["one", "news"] {
        policy::remove(world, "away", name).await?;
    }
    observe::tunnelled(world, &denied, &pods.server).await?;
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 2)
}

async fn begun_without(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("blind").await?;
    let outside = world.pod(in_namespace("blind", "outside", 2)).await?;
    let _app = outside.serve(APP_PORT).await?;
    until(world, "outside reached", &pods.client, &outside, Seen::is_plain).await?;
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    let blind = async {
        ztunnel.kill().await?;
        ztunnel.start().await?;
        // Who is outside the mesh is not known either.
        for server in [&pods.server, &outside] {
            let seen = exchange(world, &pods.client, server).await?;
            expect("refused, nothing in clear text", &seen, |seen| seen.is_refused())?;
        }
        expect("not ready", ztunnel.is_ready().await, |ready| !ready)
    };
    without_control_plane(world, blind).await?;
    ztunnel.ready().await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let seen = exchange(world, &pods.client, &outside).await?;
    expect("outside reached again", &seen, |seen| seen.is_plain())
}

async fn on_demand(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("asking", "client", 1)).await?;
    let server = captured(world, server("asking", "server")).await?;
    let outside = world.pod(in_namespace("asking", "outside", 2)).await?;
    let stranger = world.pod(in_namespace("asking", "stranger", 1)).await?;
    // Nobody dials this one.
    let _bystander = captured(world, in_namespace("asking", "bystander", 2)).await?;
    let _apps = [server.serve(APP_PORT).await?, outside.serve(APP_PORT).await?];
    observe::tunnelled(world, &client, &server).await?;
    for node in [1, 2] {
        let node = world.lab.node(node);
        replace(part(node.ztunnel())?, part(node.ztunnel_on_demand())?, None).await?;
    }
    // The very first connections: nobody has asked for any of this before. The client
    // itself is known after one of them, and then nothing but the answer is waited for.
    let seen = exchange(world, &client, &outside).await?;
    expect("a pod outside the mesh in clear text", &seen, |seen| seen.is_plain())?;
    let seen = exchange(world, &client, &server).await?;
    expect("a pod by tunnel", &seen, |seen| seen.is_tunnelled())?;
    let seen = exchange(world, &stranger, &server).await?;
    expect("a stranger served", &seen, |seen| seen.is_plain())?;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ON_DEMAND_ADMIN));
    let known = world.lab.node(1).place().http_get(admin, "/config_dump").await?.1;
    expect("the server known to the client's ztunnel, and not the bystander", known, |known| {
        known.contains("asking/server") && !known.contains("bystander")
    })?;
    let service = Service::create(world, "asking", json!({})).await?;
    let others = service.around(&[&server]);
    let to = (service.addr(), &others[..]);
    until_at(world, "a service by tunnel", &client, to, Seen::is_tunnelled).await?;
    let principal = "cluster.local/ns/asking/sa/client";
    let rules = json!([{"from": [{"source": {"principals": [principal]}}]}]);
    policy::create(world, "asking", "one", &json!({"action": "DENY", "rules": rules})).await?;
    observe::refused(world, &client, &server).await?;
    policy::remove(world, "asking", "one").await?;
    observe::tunnelled(world, &client, &server).await?;
    for node in [1, 2] {
        let node = world.lab.node(node);
        replace(part(node.ztunnel_on_demand())?, part(node.ztunnel())?, None).await?;
    }
    observe::tunnelled(world, &client, &server).await?;
    service.delete(world).await
}
