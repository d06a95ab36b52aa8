//! Pods that leave the mesh with something still going on.

use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "release-ends-proxied-connections",
            "an open connection outlives the label until the drain ends it, never in clear text",
            open_connections
        ),
        scenario!(
            "label-back-before-peers-know",
            "a label that comes back at once keeps the pod in the tunnel, connections too",
            label_back
        ),
        scenario!(
            "foreign-table-survives",
            "capture and release leave another owner's nft table alone",
            foreign_table
        ),
    ]
}

/// Client and server leave, so that both of their halves of the connection are ended.
async fn open_connections(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("draining").await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let sniffer = world.lab.sniff_wire(1).await?;
    let window = sniffer.window().await?;
    world.release(&pods.client).await?;
    world.release(&pods.server).await?;
    let marker = "drained-marker-end";
    // At the end of its time the connection is reset, not closed as if all had been said.
    let mut spoken = 0;
    let ending = loop {
        match talk.send_line(marker).await {
            Ok(_) => spoken += 1,
            Err(ending) => break ending,
        }
    };
    expect("lines that got through while draining", spoken, |spoken| *spoken > 0)?;
    // An application that does not give up finds nobody: its words stay in the pod.
    let insisting = talk.send_line(marker).await;
    observe::until_empty(world, &pods.client).await?;
    observe::until_empty(world, &pods.server).await?;
    let insisting_still = talk.send_line(marker).await;
    let observed = window.close().await?;
    expect("errors", format!("{ending}; {insisting:?}; {insisting_still:?}"), |_| {
        insisting.is_err() && insisting_still.is_err()
    })?;
    expect("no marker on the wire", observed.marker(marker.as_bytes()), |count| *count == 0)?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("new connections in clear text", &seen, |seen| seen.is_plain())
}

async fn label_back(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("again").await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    let kube = world.lab.kube();
    for _ in 0..3 {
        world.release(&pods.client).await?;
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("still the tunnel", &seen, |seen| seen.is_tunnelled())?;
        kube.label_pod("again", "client", MODE_LABEL, Some("ambient")).await?;
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("the tunnel still", &seen, |seen| seen.is_tunnelled())?;
        world.until_redirection(&pods.client, Some("enabled")).await?;
    }
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let reply = talk.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 2)
}

async fn foreign_table(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("foreign").await?;
    let make = "add table inet firewall; add set inet firewall blocked { type ipv4_addr; }; \
                add chain inet firewall input { type filter hook input priority 10; }; \
                add rule inet firewall input ip saddr @blocked counter drop";
    let made = pods.client.run(&["nft", make]).await?;
    expect("a foreign table", made.stderr, String::is_empty)?;
    let list = ["nft", "-s", "list", "table", "inet", "firewall"];
    let before = pods.client.run(&list).await?.stdout;
    world.enrol(&pods.client).await?;
    world.enrol(&pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let captured = pods.client.run(&list).await?.stdout;
    expect("the table untouched", captured, |text| *text == before)?;
    world.release(&pods.client).await?;
    let only_theirs = lab::eventually("only the foreign table", world.patience, || async {
        let tables = pods.client.run(&["nft", "list", "tables"]).await.ok()?;
        (tables.stdout.trim() == "table inet firewall").then_some(())
    });
    only_theirs.await?;
    let released = pods.client.run(&list).await?.stdout;
    expect("the table untouched", released, |text| *text == before)
}
