//! What captured connections carry, and in which address family.

use std::net::SocketAddr;

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::Ground;
use crate::cluster::pods::{APP_PORT, Couple, Distance, GREET_PORT, HTTP_PORT, UDP_PORT};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect};

/// Larger than any window at the start of a connection, and no multiple of any MTU.
const LARGE: &str = "1000000";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "large-both-ways-cross-node",
            &[13],
            "a megabyte goes through the tunnel there and back between nodes: the MTU fits",
            large_cross_node
        ),
        scenario!(
            "large-both-ways-same-node",
            &[13],
            "a megabyte goes through the tunnel there and back on one node",
            large_same_node
        ),
        scenario!(
            "server-first-and-half-close",
            &[13],
            "a server that speaks first, HTTP, and a half-close survive the tunnel",
            shapes
        ),
        scenario!(
            "datagrams-pass",
            &[8],
            "datagrams between captured pods are left alone",
            datagrams
        ),
        scenario!(
            "every-address-of-the-pods",
            &[9],
            "captured pods reach each other through the tunnel at each of their addresses",
            every_address
        ),
        scenario!(
            "own-address",
            &[6],
            "a captured pod reaches itself at its own address",
            own_address
        ),
    ]
}

async fn large_cross_node(ground: &Ground) -> anyhow::Result<()> {
    large(ground, Distance::CrossNode).await
}

async fn large_same_node(ground: &Ground) -> anyhow::Result<()> {
    large(ground, Distance::SameNode).await
}

async fn large(ground: &Ground, distance: Distance) -> anyhow::Result<()> {
    let Couple { client, server, .. } = ground.captured_couple("large", distance).await?;
    let target = Target::pod(&server).more(&["--bytes", LARGE, "--times", "2", "--deadline", "30"]);
    let seen = ground.exchange(&client, &target).await?;
    expect("two answers of a megabyte each, through the tunnel", seen, Seen::is_captured)
}

async fn shapes(ground: &Ground) -> anyhow::Result<()> {
    let Couple { client, server, .. } =
        ground.captured_couple("shapes", Distance::CrossNode).await?;
    let ways = [("greeted", GREET_PORT), ("half-close", APP_PORT), ("http", HTTP_PORT)];
    for (way, port) in ways {
        let words = ["--way", way, "--bytes", "70000"];
        let target = Target::via(server.addr(port), &server).more(&words);
        let seen = ground.exchange(&client, &target).await?;
        expect(&format!("{way}: an answer, through the tunnel"), seen, Seen::is_captured)?;
    }
    Ok(())
}

async fn datagrams(ground: &Ground) -> anyhow::Result<()> {
    let Couple { client, server, .. } =
        ground.captured_couple("datagrams", Distance::CrossNode).await?;
    let words = ["--way", "datagram", "--deadline", "5"];
    ground.until_answered(&client, server.addr(UDP_PORT), &words).await.map(drop)
}

async fn every_address(ground: &Ground) -> anyhow::Result<()> {
    let Couple { client, server, .. } =
        ground.captured_couple("addresses", Distance::CrossNode).await?;
    if server.ips.iter().all(|ip| ip.is_ipv4()) {
        return Err(Skip("the cluster gives its pods no IPv6 addresses".to_owned()).into());
    }
    for ip in &server.ips {
        let target = Target::via(SocketAddr::new(*ip, APP_PORT), &server);
        let what = format!("{ip} through the tunnel");
        let seen = ground.until(&what, &client, &target, Seen::is_captured).await?;
        expect("a peer of the same family", seen.answers, |answers| {
            answers
                .peers
                .iter()
                .all(|peer| client.ips.contains(peer) && peer.is_ipv4() == ip.is_ipv4())
        })?;
    }
    Ok(())
}

async fn own_address(ground: &Ground) -> anyhow::Result<()> {
    let Couple { client, .. } = ground.captured_couple("own", Distance::SameNode).await?;
    ground.until_answered(&client, client.addr(APP_PORT), &["--deadline", "5"]).await.map(drop)
}
