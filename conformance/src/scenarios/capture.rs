//! Capture and release of pods.

use std::net::SocketAddr;

use lab::{AppErrorKind, End};

use crate::observe::{self, Seen, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = lifecycle();
    all.extend(traffic());
    all
}

/// How pods get into the mesh and out of it.
fn lifecycle() -> Vec<Scenario> {
    vec![
        scenario!(
            "plain-before-the-label",
            "pods outside the mesh talk in clear text, untouched",
            plain_before
        ),
        scenario!(
            "label-captures-a-running-pod",
            "a label moves a running pod's traffic into mutual TLS",
            label_captures
        ),
        scenario!(
            "captured-as-it-starts",
            "a labelled pod is captured before its first packet",
            captured_as_it_starts
        ),
        scenario!(
            "namespace-label",
            "a namespace's label captures its running pods, a pod's own label wins",
            namespace_label
        ),
        scenario!(
            "older-connections-live-on",
            "a connection older than the capture is left alone",
            older_connections
        ),
        scenario!(
            "release-leaves-nothing",
            "without the label traffic is plain again and the pod is as before",
            release
        ),
        scenario!(
            "label-flips-converge",
            "after many flips of the label the last one counts",
            label_flips
        ),
    ]
}

/// What reaches a captured pod, and what it reaches.
fn traffic() -> Vec<Scenario> {
    vec![
        scenario!(
            "plaintext-reaches-a-captured-pod",
            "a client outside the mesh reaches a captured server, which sees the client's address",
            inbound_plaintext
        ),
        scenario!(
            "captured-reaches-the-outside",
            "a captured client reaches a server outside the mesh",
            outbound_passthrough
        ),
        scenario!(
            "half-close-ends-cleanly",
            "after a large line and a half-close a tunnelled connection ends without a reset",
            half_close
        ),
        scenario!(
            "closed-port-ends-at-once",
            "a connection to a closed port of a captured pod ends instead of hanging",
            closed_port
        ),
        scenario!(
            "own-address-is-not-proxied",
            "a captured pod reaches itself on its own address",
            own_address
        ),
        scenario!(
            "proxy-ports-are-closed",
            "nobody reaches the proxy's own ports from outside",
            proxy_ports
        ),
    ]
}

async fn plain_before(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("plain").await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("an answer in clear text", &seen, |seen| seen.is_plain())?;
    expect("one connection at the server", pods.app.connections(), |count| *count == 1)?;
    expect("nothing in the pod", observe::residue(&pods.client).await?, String::is_empty)
}

/// The story of the demo: label both, then watch.
pub(super) async fn label_captures(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("label").await?;
    world.enrol(&pods.client).await?;
    world.enrol(&pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    for _ in 0..10 {
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("only the tunnel on the wire", &seen, |seen| seen.is_tunnelled())?;
        expect("the client's own address at the server", &seen, |seen| {
            seen.peer_ip() == Some(pods.client.ip())
        })?;
    }
    let identity = observe::logged_identity(world, &pods.server, &pods.client);
    expect("the client's identity", identity.unwrap_or_default(), |identity| {
        identity == "spiffe://cluster.local/ns/label/sa/client"
    })
}

async fn captured_as_it_starts(world: &World) -> anyhow::Result<()> {
    let label = |spec: lab::PodSpec| spec.label(MODE_LABEL, "ambient");
    let server = world.pod(label(in_namespace("start", "server", 2))).await?;
    let _server = server.serve(APP_PORT).await?;
    world.until_redirection(&server, Some("enabled")).await?;
    let client = world.pod(label(in_namespace("start", "client", 1))).await?;
    let first = exchange(world, &client, &server).await?;
    expect("the very first exchange not in clear text", &first, |seen| seen.marker == 0)?;
    observe::tunnelled(world, &client, &server).await
}

async fn namespace_label(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("spaces").await?;
    let out = world.pod(in_namespace("spaces", "out", 1).label(MODE_LABEL, "none")).await?;
    world.lab.kube().label_namespace("spaces", MODE_LABEL, Some("ambient")).await?;
    world.until_redirection(&pods.client, Some("enabled")).await?;
    world.until_redirection(&pods.server, Some("enabled")).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let seen = exchange(world, &out, &pods.server).await?;
    expect("plain from the pod that opted out", &seen, |seen| seen.is_plain())?;
    expect("nothing in it", observe::residue(&out).await?, String::is_empty)?;
    world.lab.kube().label_namespace("spaces", MODE_LABEL, None).await?;
    world.until_redirection(&pods.client, None).await?;
    world.until_redirection(&pods.server, None).await
}

async fn older_connections(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("older").await?;
    let mut older = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    older.send_line("before").await?;
    world.enrol(&pods.client).await?;
    world.enrol(&pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let reply = older.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 2)
}

async fn inbound_plaintext(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("inbound").await?;
    world.enrol(&pods.server).await?;
    let seen = until(world, "an answer", &pods.client, &pods.server, |s| s.reply.is_ok()).await?;
    expect("clear text, as the client is outside", &seen, |seen| seen.is_plain())?;
    expect("the client's own address", &seen, |seen| seen.peer_ip() == Some(pods.client.ip()))
}

async fn outbound_passthrough(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("outbound").await?;
    world.enrol(&pods.client).await?;
    let seen = until(world, "an answer", &pods.client, &pods.server, |s| s.reply.is_ok()).await?;
    expect("clear text, as the server is outside", &seen, |seen| seen.is_plain())
}

async fn half_close(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("halves").await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line(&"x".repeat(64 * 1024)).await?;
    talk.half_close().await?;
    let end = talk.end().await?;
    expect("a clean end after the half-close", format!("{end:?}"), |_| matches!(end, End::Closed))
}

async fn closed_port(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("closed").await?;
    let failure = pods.client.exchange(pods.server.addr(9), "anyone?").await.err();
    let kind = failure.as_ref().map(|error| error.kind);
    expect("a refused, reset or closed connection", format!("{failure:?}"), |_| {
        matches!(kind, Some(AppErrorKind::Refused | AppErrorKind::Reset | AppErrorKind::Closed))
    })
}

async fn own_address(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("own").await?;
    world.enrol(&pods.client).await?;
    let server = pods.client.serve(APP_PORT).await?;
    let reply = pods.client.exchange(pods.client.addr(APP_PORT), "me").await?;
    expect("the pod's own address", reply.peer.ip().to_canonical(), |ip| *ip == pods.client.ip())?;
    let loopback = if pods.client.ip().is_ipv4() { "127.0.0.1" } else { "::1" };
    let reply =
        pods.client.exchange(SocketAddr::new(loopback.parse()?, APP_PORT), "me too").await?;
    expect("loopback", reply.peer.ip().to_canonical(), std::net::IpAddr::is_loopback)?;
    expect("two connections at the server", server.connections(), |count| *count == 2)
}

async fn proxy_ports(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("ports").await?;
    world.enrol(&pods.server).await?;
    for port in [15001, 15006] {
        let failure = pods.client.connect(pods.server.addr(port)).await.err();
        expect("refused or reset", format!("{port}: {failure:?}"), |_| {
            let kind = failure.as_ref().map(|error| error.kind);
            matches!(kind, Some(AppErrorKind::Refused | AppErrorKind::Reset))
        })?;
    }
    Ok(())
}

/// Labels, unlabels, and compares the pod with a fresh one.
pub(super) async fn release(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("release").await?;
    world.release(&pods.client).await?;
    world.release(&pods.server).await?;
    until(world, "an exchange in clear text", &pods.client, &pods.server, Seen::is_plain).await?;
    for pod in [&pods.client, &pods.server] {
        let left = lab::eventually("an empty pod", world.patience, || async {
            observe::residue(pod).await.ok().filter(String::is_empty)
        })
        .await;
        if left.is_err() {
            expect("nothing in the pod", observe::residue(pod).await?, String::is_empty)?;
        }
    }
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("still clear text", &seen, |seen| seen.is_plain())
}

async fn label_flips(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("flips").await?;
    world.enrol(&pods.server).await?;
    for flip in 0..20 {
        let value = (flip % 2 == 0).then_some("ambient");
        world.lab.kube().label_pod("flips", "client", MODE_LABEL, value).await?;
    }
    world.enrol(&pods.client).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

/// Both addresses of the server, from a client that has both.
pub(super) async fn both_families(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("both").await?;
    expect("two addresses", pods.server.ips().len(), |count| *count == 2)?;
    for ip in pods.server.ips() {
        let sniffer = world.lab.sniff_wire(1).await?;
        let window = sniffer.window().await?;
        let marker = format!("dual-{ip}-end");
        let reply = pods.client.exchange(SocketAddr::new(*ip, APP_PORT), &marker).await?;
        let observed = window.close().await?;
        expect("no marker on the wire", observed.marker(marker.as_bytes()), |count| *count == 0)?;
        expect("a peer of the same family", reply.peer, |peer| {
            pods.client.ips().contains(&peer.ip().to_canonical())
                && peer.ip().to_canonical().is_ipv4() == ip.is_ipv4()
        })?;
    }
    Ok(())
}
