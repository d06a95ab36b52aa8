//! Somebody inside a captured pod breaks what captures it. It is found without anybody
//! asking, repaired in place, and told.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::Pod;

use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{Couple, REDIRECTION, World};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("rules-flushed", "rules removed by hand are back within five seconds", flushed),
        scenario!(
            "route-deleted",
            "a policy rule or route removed by hand is back within five seconds",
            route_deleted
        ),
        scenario!(
            "listener-destroyed",
            "a listener ended from inside the pod listens again within five seconds",
            listener_destroyed
        ),
        scenario!(
            "ipv6-toggled",
            "IPv6 switched off and on in a pod: what it needs is there within five seconds",
            ipv6_toggled
        ),
        scenario!(
            "flapping",
            "a pod whose rules are flushed again and again is repaired each time, and says so",
            flapping
        ),
    ]
}

/// What the promise is.
const SOON: Duration = Duration::from_secs(5);
/// Counts the milliseconds from the end of the flush on until the redirect is back; looks
/// as often as it can, and gives up some time.
const FLUSH_AND_WAIT: &str = "\
    nft flush ruleset; began=$(date +%s%N); \
    for look in $(seq 3000); do \
        if nft list table inet sluice 2>/dev/null | grep -q 'redirect to :15001'; then \
            echo $((($(date +%s%N) - began) / 1000000)); exit 0; \
        fi; \
    done; echo never";

async fn flushed(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("flushed").await?;
    for pod in [&pods.client, &pods.server] {
        let waited = pod.run(&["sh", "-c", FLUSH_AND_WAIT]).await?.stdout;
        println!("     {}: rules back {} ms after the flush", pod.name(), waited.trim());
        let soon =
            |text: &String| text.trim().parse().is_ok_and(|ms| Duration::from_millis(ms) < SOON);
        expect("milliseconds, less than five seconds of them", waited, soon)?;
        told(world, pod, "Drifted").await?;
        healed(world, &pods, pod).await?;
    }
    Ok(())
}

async fn route_deleted(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("routeless").await?;
    let damages: [&[&str]; 4] = [
        &["ip", "rule", "del", "pref", "13"],
        &["ip", "route", "flush", "table", "1337"],
        &["ip", "-6", "rule", "del", "pref", "13"],
        &["ip", "-6", "route", "flush", "table", "1337"],
    ];
    for damage in damages {
        run(&pods.server, damage).await?;
        soon(world, &damage.join(" "), || has_policy_routes(&pods.server)).await?;
    }
    told(world, &pods.server, "Drifted").await?;
    healed(world, &pods, &pods.server).await
}

async fn listener_destroyed(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("deaf").await?;
    for (pod, port) in [(&pods.client, 15001), (&pods.server, 15006), (&pods.server, 15008)] {
        let filter = format!("sport = :{port}");
        run(pod, &["ss", "-K", "-tnlH", &filter]).await?;
        soon(world, &format!("port {port}"), || async {
            Ok(!pod.run(&["ss", "-tnlH", &filter]).await?.stdout.trim().is_empty())
        })
        .await?;
        told(world, pod, "Drifted").await?;
    }
    healed(world, &pods, &pods.server).await
}

async fn ipv6_toggled(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("toggled").await?;
    for round in 0..2 {
        switch_v6(&pods.server, "1").await?;
        observe::tunnelled(world, &pods.client, &pods.server).await?;
        switch_v6(&pods.server, "0").await?;
        let what = format!("the IPv6 part, round {round}");
        soon(world, &what, || has_policy_routes(&pods.server)).await?;
    }
    healed(world, &pods, &pods.server).await
}

async fn flapping(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("flapping").await?;
    for _ in 0..8 {
        let waited = pods.client.run(&["sh", "-c", FLUSH_AND_WAIT]).await?.stdout;
        let soon =
            |text: &String| text.trim().parse().is_ok_and(|ms| Duration::from_millis(ms) < SOON);
        expect("milliseconds, less than five seconds of them", waited, soon)?;
    }
    told(world, &pods.client, "Flapping").await?;
    let drifted = events(world, &pods.client).await?;
    let drifted = drifted.iter().filter(|reason| *reason == "Drifted").count();
    expect("a few single repairs told", drifted, |count| *count <= 3)?;
    healed(world, &pods, &pods.client).await
}

/// Waits for what must be there within [`SOON`].
async fn soon<F>(world: &World, what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let began = Instant::now();
    while !look().await? {
        let waited = began.elapsed();
        expect(what, format!("not within {waited:?}"), |_| waited < world.patience)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    println!("     {what}: back within {} ms", took.as_millis());
    expect(&format!("{what} back within {SOON:?}"), format!("{took:?}"), |_| took < SOON)
}

/// The pod tells its peers and people what it told before, and its traffic is in the tunnel.
async fn healed(world: &World, pods: &Couple, pod: &Pod) -> anyhow::Result<()> {
    let says = lab::eventually("the pod says that it is captured", world.patience, || async {
        let object = world.lab.kube().pod(pod.namespace(), pod.name()).await.ok()?;
        let annotations = &object["metadata"]["annotations"];
        (annotations[REDIRECTION] == "enabled" && annotations["sluice.dev/observed"] == "captured")
            .then_some(())
    });
    says.await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("the tunnel", &seen, |seen| seen.is_tunnelled())
}

async fn told(world: &World, pod: &Pod, reason: &str) -> anyhow::Result<()> {
    lab::eventually(&format!("an Event {reason}"), world.patience, || async {
        events(world, pod).await.ok()?.iter().any(|found| found == reason).then_some(())
    })
    .await
    .map_err(Into::into)
}

/// The reasons of a pod's Events.
async fn events(world: &World, pod: &Pod) -> anyhow::Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{}/events", pod.namespace());
    let all = world.lab.kube().list(&path).await.context("list Events")?;
    let of_pod = all.iter().filter(|event| event["involvedObject"]["name"] == pod.name());
    Ok(of_pod.filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect())
}

async fn has_policy_routes(pod: &Pod) -> anyhow::Result<bool> {
    for family in ["-4", "-6"] {
        let rules = pod.run(&["ip", family, "rule"]).await?.stdout;
        let routes = pod.run(&["ip", family, "route", "show", "table", "1337"]).await?.stdout;
        if !rules.contains("lookup 1337") || !routes.contains("local default dev lo") {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn switch_v6(pod: &Pod, value: &str) -> anyhow::Result<()> {
    let script =
        format!("for i in all lo; do echo {value} > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done");
    run(pod, &["sh", "-c", &script]).await
}

async fn run(pod: &Pod, argv: &[&str]) -> anyhow::Result<()> {
    let ran = pod.run(argv).await?;
    expect(&format!("{} without a complaint", argv.join(" ")), ran.stderr, String::is_empty)
}
