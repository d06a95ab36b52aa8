//! Pods whose owners want something special, by annotation, while they run.

use std::time::Duration;

use lab::{Conversation, Pod};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::load;
use crate::observe::{self, Seen, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, World};

use super::lookups::{DNS_CAPTURE, query};
use super::services::Service;

/// As resolvers do.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const INBOUND_PORTS: &str = "sluice.dev/exclude-inbound-ports";
const OUTBOUND_PORTS: &str = "sluice.dev/exclude-outbound-ports";
const OUTBOUND_CIDRS: &str = "sluice.dev/exclude-outbound-cidrs";
const UNCAPTURED: &str = "sluice.dev/uncaptured-protocols";
const OLDER: &str = "sluice.dev/older-connections";
const BYPASS: &str = "ambient.istio.io/bypass-inbound-capture";
/// Where servers answer datagrams.
const DATAGRAMS: u16 = 9999;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "excluded-port-goes-direct",
            "an excluded port is direct and no other, changed under load without a failure",
            excluded_port
        ),
        scenario!(
            "excluded-network-goes-direct",
            "an excluded destination is direct for who excludes it",
            excluded_network
        ),
        scenario!(
            "mistaken-option-changes-nothing",
            "an option that means nothing leaves the last good one, and an Event says so",
            mistake
        ),
        scenario!(
            "uncaptured-protocols-pass-or-are-blocked",
            "datagrams pass until a pod wants them blocked, in both directions",
            uncaptured
        ),
        scenario!(
            "lookups-follow-the-annotation",
            "lookups go to ztunnel and back while a pod runs, also where datagrams are blocked",
            lookups_toggle
        ),
        scenario!(
            "older-connections-are-reset",
            "a connection older than the capture is reset where the pod says so, and no other",
            older_reset
        ),
        scenario!(
            "older-connections-are-kept-for-a-time",
            "a connection older than the capture lives as long as the pod says",
            older_kept_for
        ),
        scenario!(
            "gateways-receive-directly",
            "what reaches a gateway in clear text goes past ztunnel, tunnels still end there",
            gateway
        ),
    ]
}

async fn annotate(world: &World, pod: &Pod, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace(), pod.name());
    let patch = json!({"metadata": {"annotations": {key: value}}});
    world.lab.kube().merge_patch(&path, &patch).await?;
    Ok(())
}

/// Whether a connection passes ztunnel at one of its ends.
async fn is_proxied(pod: &Pod, talk: &Conversation) -> anyhow::Result<bool> {
    let ends = ["ss", "-Htn", "( sport = :15001 or sport = :15006 )"];
    let sockets = pod.run(&ends).await?.stdout;
    let port = format!(":{}", talk.local().port());
    Ok(sockets.lines().any(|line| line.trim_end().ends_with(&port)))
}

/// A connection whose server sees the client's own port, and that no ztunnel has part in.
async fn direct(world: &World, pods: &Couple) -> anyhow::Result<()> {
    let what = "a direct connection";
    let direct = || async {
        let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await.ok()?;
        let peer = talk.send_line("who am I?").await.ok()?.peer;
        let proxied = is_proxied(&pods.client, &talk).await.ok()?
            || is_proxied(&pods.server, &talk).await.ok()?;
        (peer.port() == talk.local().port() && !proxied).then_some(())
    };
    lab::eventually(what, world.patience, direct).await?;
    Ok(())
}

async fn excluded_port(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("ports-out").await?;
    world.may_speak_openly(&pods.client).await?;
    let _other = pods.server.serve(APP_PORT + 1).await?;
    let mut open = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    open.send_line("before").await?;
    let there_and_back = async {
        annotate(world, &pods.client, OUTBOUND_PORTS, Some("8080,9000-9100")).await?;
        annotate(world, &pods.server, INBOUND_PORTS, Some("8080")).await?;
        direct(world, &pods).await?;
        until(world, "clear text", &pods.client, &pods.server, |seen| seen.marker > 0).await?;
        let (to, others) = (pods.server.addr(APP_PORT + 1), pods.server.ips());
        let seen = observe::exchange_at(world, &pods.client, to, others).await?;
        expect("no other port in clear text", &seen, |seen| {
            seen.reply.is_ok() && seen.marker == 0
        })?;
        annotate(world, &pods.client, OUTBOUND_PORTS, None).await?;
        annotate(world, &pods.server, INBOUND_PORTS, None).await
    };
    let ((), load) = load::during(&pods, "load", there_and_back).await?;
    expect("connections, none failed", &load, |load| load.is_whole())?;
    let reply = open.send_line("after").await?;
    expect("the same connection", reply.number, |number| *number == 2)?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

async fn excluded_network(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("networks").await?;
    world.may_speak_openly(&pods.client).await?;
    let networks = pods.server.ips().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    annotate(world, &pods.client, OUTBOUND_CIDRS, Some(&networks)).await?;
    // The server knows nothing of it: there it arrives as plaintext.
    until(world, "clear text", &pods.client, &pods.server, Seen::is_plain).await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("past my ztunnel").await?;
    let ends = (is_proxied(&pods.client, &talk).await?, is_proxied(&pods.server, &talk).await?);
    expect("only the server's ztunnel", format!("{ends:?}"), |_| ends == (false, true))?;
    annotate(world, &pods.client, OUTBOUND_CIDRS, None).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

async fn mistake(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("mistakes").await?;
    world.may_speak_openly(&pods.client).await?;
    annotate(world, &pods.client, OUTBOUND_PORTS, Some("8080")).await?;
    until(world, "clear text", &pods.client, &pods.server, Seen::is_plain).await?;
    annotate(world, &pods.client, OUTBOUND_PORTS, Some("8080;9000")).await?;
    let message = lab::eventually("an Event", world.patience, || async {
        let events = world.lab.kube().list("/api/v1/namespaces/mistakes/events").await.ok()?;
        let bad = |event: &&Value| event["reason"] == "BadOption";
        Some(events.iter().find(bad)?["message"].as_str()?.to_owned())
    });
    let message = message.await?;
    expect("key, value and what is allowed", &message, |message| {
        [OUTBOUND_PORTS, "8080;9000", "8000-8010"].iter().all(|part| message.contains(part))
    })?;
    for _ in 0..5 {
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("the last good option", &seen, |seen| seen.is_plain())?;
    }
    world.until_redirection(&pods.client, Some("enabled")).await?;
    annotate(world, &pods.client, OUTBOUND_PORTS, Some("9000")).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

async fn uncaptured(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("datagrams").await?;
    let _echoes = (
        pods.server.echo_datagrams(DATAGRAMS).await?,
        pods.client.echo_datagrams(DATAGRAMS).await?,
    );
    let (out, back) = (pods.server.addr(DATAGRAMS), pods.client.addr(DATAGRAMS));
    pods.client.ask(out, b"datagram-one-end").await?;
    pods.server.ask(back, b"datagram-two-end").await?;

    annotate(world, &pods.client, UNCAPTURED, Some("block")).await?;
    let refused = || async { soon(pods.client.ask(out, b"datagram-end")).await?.err() };
    lab::eventually("datagrams are refused", world.patience, refused).await?;
    let sniffer = world.lab.sniff_wire(1).await?;
    let window = sniffer.window().await?;
    let (leaving, arriving) = (
        pods.client.ask(out, b"datagram-leaves-end").await,
        pods.server.ask(back, b"datagram-arrives-end").await,
    );
    let observed = window.close().await?;
    let both = format!("{leaving:?} {arriving:?}");
    expect("both refused", both, |_| leaving.is_err() && arriving.is_err())?;
    let left = observed.marker(b"datagram-leaves-end");
    expect("no datagram of the pod on the wire", left, |count| *count == 0)?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("connections as before", &seen, |seen| seen.is_tunnelled())?;
    let server = pods.client.serve(APP_PORT).await?;
    pods.client.exchange(pods.client.addr(APP_PORT), "me").await?;
    drop(server);
    let own = pods.client.ask(back, b"datagram-to-myself-end").await;
    expect("datagrams within the pod", format!("{own:?}"), |_| own.is_ok())?;

    annotate(world, &pods.client, UNCAPTURED, None).await?;
    let passes = || async { soon(pods.client.ask(out, b"datagram-end")).await?.ok() };
    lab::eventually("datagrams pass", world.patience, passes).await?;
    Ok(())
}

/// A datagram that is on its way as the rules change may be lost: who sends them asks again.
async fn soon<T>(asked: impl Future<Output = T>) -> Option<T> {
    timeout(ASK_AGAIN, asked).await.ok()
}

async fn lookups_toggle(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("toggled").await?;
    // A resolver that sends the question back: an answer of ztunnel's says that it is one.
    let _resolver = pods.server.echo_datagrams(53).await?;
    let service = Service::create(world, "toggled", json!({})).await?;
    let name = "shop.toggled.svc.cluster.local";
    let (resolver, question) = (pods.server.addr(53), query(name, service.addresses[0]));
    let asked = async || soon(pods.client.ask(resolver, &question)).await?.ok();
    let by_ztunnel = |answer: &[u8]| answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let until = async |what: &str, ztunnels: bool| {
        let seen = || async { asked().await.filter(|it| by_ztunnel(it) == ztunnels) };
        lab::eventually(what, world.patience, seen).await.map(drop)
    };
    until("an answer of the resolver's", false).await?;
    annotate(world, &pods.client, DNS_CAPTURE, Some("true")).await?;
    until("an answer of ztunnel's", true).await?;
    annotate(world, &pods.client, UNCAPTURED, Some("block")).await?;
    let echo = pods.server.echo_datagrams(DATAGRAMS).await?;
    let echoes = pods.server.addr(DATAGRAMS);
    let other = || async { soon(pods.client.ask(echoes, b"?")).await?.err() };
    lab::eventually("datagrams are refused", world.patience, other).await?;
    until("an answer of ztunnel's, still", true).await?;
    drop(echo);
    annotate(world, &pods.client, UNCAPTURED, None).await?;
    annotate(world, &pods.client, DNS_CAPTURE, None).await?;
    until("an answer of the resolver's again", false).await?;
    service.delete(world).await
}

async fn older_reset(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("resets").await?;
    let mut older = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    older.send_line("before").await?;
    let own = pods.client.serve(APP_PORT).await?;
    let mut within = pods.client.connect(pods.client.addr(APP_PORT)).await?;
    within.send_line("to myself").await?;
    annotate(world, &pods.client, OLDER, Some("reset")).await?;
    world.enrol(&pods.client).await?;
    let end = older.end().await?;
    expect("a reset", format!("{end:?}"), |_| matches!(end, lab::End::Reset))?;
    let reply = within.send_line("still there").await?;
    expect("the pod's own connection", reply.number, |number| *number == 2)?;
    let mut younger = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    younger.send_line("before").await?;
    world.enrol(&pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let reply = younger.send_line("after").await?;
    expect("a proxied connection lives on", reply.number, |number| *number == 2)?;
    drop(own);
    Ok(())
}

async fn older_kept_for(world: &World) -> anyhow::Result<()> {
    const KEPT: Duration = Duration::from_secs(4);
    let pods = world.couple("kept").await?;
    let mut older = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    older.send_line("before").await?;
    annotate(world, &pods.client, OLDER, Some("keep-for=4s")).await?;
    let began = Instant::now();
    world.enrol(&pods.client).await?;
    let mut spoken = 0;
    while older.send_line("still").await.is_ok() {
        spoken += 1;
        let lived = began.elapsed();
        expect("an end in time", format!("{lived:?}"), |_| lived < world.patience + KEPT)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lived = began.elapsed();
    expect("lines meanwhile", spoken, |spoken| *spoken > 0)?;
    let text = format!("{lived:?}");
    expect("not before its time", text, |_| lived >= KEPT)
}

async fn gateway(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("gateways").await?;
    let outside = world.pod(crate::world::in_namespace("gateways", "outside", 1)).await?;
    annotate(world, &pods.server, BYPASS, Some("true")).await?;
    let past = || async {
        let mut talk = outside.connect(pods.server.addr(APP_PORT)).await.ok()?;
        talk.send_line("from outside").await.ok()?;
        (!is_proxied(&pods.server, &talk).await.ok()?).then_some(())
    };
    lab::eventually("clear text goes past ztunnel", world.patience, past).await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the tunnel for its peers", &seen, |seen| seen.is_tunnelled())
}
