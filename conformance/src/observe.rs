//! Oracles: what was seen on the wire and in the pods.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use lab::{AppError, Place, Pod, Reply};

use crate::scenario::expect;
use crate::world::{APP_PORT, HBONE_PORT, World};

/// What one exchange between two pods looked like to both of them and on the wire.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What the client got back, or how it failed.
    pub reply: Result<Reply, AppError>,
    /// How often the marker stood on the wire.
    pub marker: usize,
    /// TCP packets from or to the tunnel port.
    pub tunnel: usize,
    /// TCP packets of the pair with any other port.
    pub elsewhere: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.answer(), self.wire())
    }
}

impl Seen {
    /// What both ends made of it.
    pub(crate) fn answer(&self) -> String {
        match &self.reply {
            Ok(reply) => format!("answered, the server saw {}", reply.peer),
            Err(error) => format!("no answer ({error})"),
        }
    }

    /// What crossed the wire meanwhile.
    pub(crate) fn wire(&self) -> String {
        on_the_wire(self.marker, self.tunnel, self.elsewhere)
    }

    /// Answered, and only through the tunnel.
    pub(crate) fn is_tunnelled(&self) -> bool {
        self.reply.is_ok() && self.marker == 0 && self.tunnel > 0 && self.elsewhere == 0
    }

    /// Answered in clear text, without the tunnel.
    pub(crate) fn is_plain(&self) -> bool {
        self.reply.is_ok() && self.marker > 0 && self.tunnel == 0
    }

    /// Not answered, and nothing of the marker left the node.
    pub(crate) fn is_refused(&self) -> bool {
        self.reply.is_err() && self.marker == 0
    }

    /// The address that the server saw.
    pub(crate) fn peer_ip(&self) -> Option<std::net::IpAddr> {
        self.reply.as_ref().ok().map(|reply| reply.peer.ip().to_canonical())
    }
}

/// A sentence about counted markers and packets.
pub(crate) fn on_the_wire(marker: usize, tunnel: usize, elsewhere: usize) -> String {
    format!(
        "on the wire: marker {marker} times, {tunnel} packets on port {HBONE_PORT}, \
         {elsewhere} on other ports"
    )
}

/// One line to the server's [`APP_PORT`] and back, with the wire watched meanwhile. The
/// line holds a marker that was never sent before.
pub(crate) async fn exchange(world: &World, client: &Pod, server: &Pod) -> anyhow::Result<Seen> {
    exchange_at(world, client, server.addr(APP_PORT), server.ips()).await
}

/// One line to an address and back; `others` are those who may be spoken to by it.
pub(crate) async fn exchange_at(
    world: &World,
    client: &Pod,
    to: SocketAddr,
    others: &[IpAddr],
) -> anyhow::Result<Seen> {
    let marker = fresh_marker();
    let sniffer = world.lab.sniff_wire(1).await.context("watch the wire")?;
    let window = sniffer.window().await?;
    let reply = client.exchange(to, &marker).await;
    let observed = window.close().await?;
    let pair = observed.between(client.ips(), others);
    Ok(Seen {
        reply,
        marker: observed.marker(marker.as_bytes()),
        tunnel: pair.tcp_with_port(HBONE_PORT),
        elsewhere: pair.tcp_without_port(HBONE_PORT),
    })
}

/// Repeats [`exchange`] until it is as `holds` wants it.
pub(crate) async fn until(
    world: &World,
    what: &str,
    client: &Pod,
    server: &Pod,
    holds: impl Fn(&Seen) -> bool,
) -> anyhow::Result<Seen> {
    until_at(world, what, client, (server.addr(APP_PORT), server.ips()), holds).await
}

/// Repeats [`exchange_at`] until it is as `holds` wants it.
pub(crate) async fn until_at(
    world: &World,
    what: &str,
    client: &Pod,
    (to, others): (SocketAddr, &[IpAddr]),
    holds: impl Fn(&Seen) -> bool,
) -> anyhow::Result<Seen> {
    let deadline = tokio::time::Instant::now() + world.patience;
    loop {
        let seen = exchange_at(world, client, to, others).await?;
        if holds(&seen) {
            return Ok(seen);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(crate::scenario::Differs {
                expected: format!("{what} within {:?}", world.patience),
                observed: seen.to_string(),
            }
            .into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Waits until an exchange goes through the tunnel, and nowhere else.
pub(crate) async fn tunnelled(world: &World, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    until(world, "an exchange through the tunnel", client, server, Seen::is_tunnelled).await?;
    Ok(())
}

/// Waits until an exchange is refused, with nothing of it in clear text.
pub(crate) async fn refused(world: &World, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    until(world, "a refusal", client, server, Seen::is_refused).await?;
    Ok(())
}

/// Everything that capture puts into a pod, as text; empty when there is nothing.
pub(crate) async fn residue(pod: &Pod) -> anyhow::Result<String> {
    residue_in(pod.place()).await
}

/// As [`residue`], of any namespace.
pub(crate) async fn residue_in(pod: &Place) -> anyhow::Result<String> {
    let rules = pod.run(&["nft", "list", "ruleset"]).await?.stdout;
    let mut found = rules.trim().to_owned();
    for family in ["-4", "-6"] {
        let policy = pod.run(&["ip", family, "rule"]).await?.stdout;
        found.extend(policy.lines().filter(|line| line.contains("fwmark")).map(own_line));
        let routes = pod.run(&["ip", family, "route", "show", "table", "1337"]).await?.stdout;
        found.extend(routes.lines().filter(|line| !line.is_empty()).map(own_line));
    }
    let sockets = pod.run(&["ss", "-Htln"]).await?.stdout;
    let ours = |line: &&str| [":15001", ":15006", ":15008"].iter().any(|port| line.contains(port));
    found.extend(sockets.lines().filter(ours).map(own_line));
    let marked = pod.run(&["conntrack", "-L", "--mark", "0x111/0xfff"]).await?.stdout;
    found.extend(marked.lines().filter(|line| !line.is_empty()).map(own_line));
    Ok(found)
}

/// Waits until nothing of a capture is left in a pod.
pub(crate) async fn until_empty(world: &World, pod: &Pod) -> anyhow::Result<()> {
    let left = lab::eventually("an empty pod", world.patience, || async {
        residue(pod).await.ok().filter(String::is_empty)
    })
    .await;
    match left {
        Ok(_) => Ok(()),
        Err(_) => expect("nothing in the pod", residue(pod).await?, String::is_empty),
    }
}

fn own_line(line: &str) -> String {
    format!("\n{line}")
}

/// The identity that the server's node logged for a client's address.
pub(crate) fn logged_identity(world: &World, server: &Pod, client: &Pod) -> Option<String> {
    let log = world.lab.node(server.node()).ztunnel()?.log_text();
    let client = client.ip().to_string();
    let line = log.lines().rev().find(|line| {
        line.contains("direction=\"inbound\"") && line.contains(&client) && line.contains("spiffe")
    })?;
    let (_, rest) = line.split_once("src.identity=")?;
    Some(rest.trim_start_matches('"').split(['"', ' ']).next()?.to_owned())
}

/// A text that appears nowhere else on the wire.
fn fresh_marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("clear-text-marker-{}-{count}-end", std::process::id())
}
