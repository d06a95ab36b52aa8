//! Pods that are unlike others, and many of them at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::{Node, Part, TryAgain};

use super::faults::part;
use crate::observe::{self, exchange, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, HBONE_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "ipv6-switched-off",
            "a pod whose IPv6 is switched off is captured and released",
            ipv6_off
        ),
        scenario!(
            "port-taken",
            "a pod whose application sits on a port of the proxy hurts only itself, and heals",
            port_taken
        ),
        scenario!(
            "many-at-once",
            "twenty labelled pods that start together are all captured",
            many_at_once
        ),
        scenario!(
            "del-twice",
            "DEL succeeds as often as it is called, also without a namespace",
            del_twice
        ),
        scenario!(
            "deleted-during-add",
            "a pod deleted while its ADD waits for ztunnel leaves no ghost",
            deleted_during_add
        ),
        scenario!(
            "namespace-path-hidden",
            "a captured pod whose path is gone for a while is kept, refused, and found again",
            path_hidden
        ),
        scenario!(
            "no-namespace-held",
            "nobody keeps the namespace of a deleted pod alive",
            no_namespace_held
        ),
    ]
}

async fn ipv6_off(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("nov6").await?;
    for name in ["all", "default", "lo"] {
        let knob = format!("net.ipv6.conf.{name}.disable_ipv6=1");
        let ran = pods.client.run(&["sysctl", "-qw", &knob]).await?;
        expect("IPv6 switched off", ran.stderr, String::is_empty)?;
    }
    world.enrol(&pods.client).await?;
    world.enrol(&pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    pods.client.check().await?;
    world.release(&pods.client).await?;
    observe::until_empty(world, &pods.client).await
}

async fn port_taken(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("taken").await?;
    let squatter = pods.client.serve(HBONE_PORT).await?;
    world.lab.kube().label_pod("taken", "client", MODE_LABEL, Some("ambient")).await?;
    let node = world.lab.node(1);
    let uid = pods.client.uid();
    let trouble = lab::eventually("the agent tells why", world.patience, || async {
        let state = agent_page(node, "/state").await.ok()?;
        let state: serde_json::Value = serde_json::from_str(&state).ok()?;
        let pods = state["pods"].as_array()?;
        let pod = pods.iter().find(|pod| pod["uid"] == uid)?;
        pod["trouble"].as_str().map(str::to_owned)
    });
    trouble.await?;
    let before = failed_captures(node).await?;
    // Another pod goes its whole way in meanwhile.
    world.enrol(&pods.server).await?;
    let spec = in_namespace("taken", "neighbour", 1).label(MODE_LABEL, "ambient");
    let neighbour = world.pod(spec).await?;
    world.until_redirection(&neighbour, Some("enabled")).await?;
    observe::tunnelled(world, &neighbour, &pods.server).await?;
    let after = failed_captures(node).await?;
    expect("growing pauses between the attempts, so few of them", after - before, |attempts| {
        *attempts <= 4
    })?;
    expect("ready", part(node.agent())?.is_ready().await, |ready| *ready)?;
    let residue = observe::residue(&pods.client).await?;
    expect("no rules of a failed capture", residue, |text| !text.contains("table"))?;
    drop(squatter);
    world.until_redirection(&pods.client, Some("enabled")).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

pub(super) async fn agent_page(node: &Node, path: &str) -> anyhow::Result<String> {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
    Ok(node.place().http_get(admin, path).await?.1)
}

async fn failed_captures(node: &Node) -> anyhow::Result<u64> {
    let metrics = agent_page(node, "/metrics").await?;
    let line = metrics
        .lines()
        .find(|line| line.contains("reconcile_failures") && line.contains("\"capture\""))
        .context("no metric of failed captures")?;
    let value = line.rsplit(' ').next().unwrap_or_default();
    value.parse().with_context(|| format!("read {line:?}"))
}

async fn many_at_once(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("crowd").await?;
    let specs = (0..20).map(|number| {
        in_namespace("crowd", &format!("pod-{number}"), 1).label(MODE_LABEL, "ambient")
    });
    let pods = try_join_all(specs.map(|spec| world.pod(spec))).await?;
    for pod in &pods {
        // Their ADD has returned, so they are captured, whatever peers know already.
        let rules = observe::residue(pod).await?;
        expect("rules as the pod starts", rules, |text| text.contains("redirect to :15001"))?;
        world.until_redirection(pod, Some("enabled")).await?;
        observe::tunnelled(world, pod, &server).await?;
        let seen = exchange(world, pod, &server).await?;
        expect("the tunnel from then on", &seen, |seen| seen.is_tunnelled())?;
    }
    Ok(())
}

async fn del_twice(world: &World) -> anyhow::Result<()> {
    let spec = in_namespace("gone", "twice", 1).label(MODE_LABEL, "ambient");
    let pod = world.pod(spec).await?;
    world.until_redirection(&pod, Some("enabled")).await?;
    let cni = world.lab.node(1).cni();
    let list = cni.load()?;
    let attachment = pod.attachment();
    cni.del(&list, attachment).await.context("first DEL")?;
    cni.del(&list, attachment).await.context("second DEL")?;
    cni.del(&list, &attachment.without_netns()).await.context("DEL with an empty CNI_NETNS")?;
    Ok(())
}

/// A stopped ztunnel holds ADD up for as long as it takes to delete the pod.
async fn deleted_during_add(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let pid = part(node.ztunnel())?.pid().await.context("no ztunnel runs")?;
    let pid = pid.to_string();
    let kube = world.lab.kube();
    let spec = in_namespace("ghosts", "doomed", 1).label(MODE_LABEL, "ambient");
    let stopped = node.run(&["kill", "-STOP", &pid]).await?;
    let deletion = async {
        lab::eventually("an ADD under way", world.patience, || async {
            let known = known_pods(node).await.ok()?;
            known.iter().any(|pod| pod == "doomed").then_some(())
        })
        .await?;
        let path = "/api/v1/namespaces/ghosts/pods/doomed?gracePeriodSeconds=0";
        kube.delete(path).await?;
        lab::eventually("the agent sees no pod", world.patience, || async {
            let known = known_pods(node).await.ok()?;
            (!known.iter().any(|pod| pod == "doomed")).then_some(())
        })
        .await?;
        anyhow::Ok(())
    };
    let creation = world.lab.create_pod(spec.try_again(TryAgain::Never));
    let (created, deleted) = tokio::join!(creation, deletion);
    let going_on = node.run(&["kill", "-CONT", &pid]).await?;
    expect("signals sent", format!("{}{}", stopped.stderr, going_on.stderr), String::is_empty)?;
    deleted?;
    expect("no pod", format!("{:?}", created.as_ref().err()), |_| created.is_err())?;
    part(node.agent())?.ready().await?;
    let spec = in_namespace("ghosts", "alive", 1).label(MODE_LABEL, "ambient");
    let alive = world.pod(spec).await?;
    world.until_redirection(&alive, Some("enabled")).await?;
    expect("no ghost", known_pods(node).await?.join(" "), |names| !names.contains("doomed"))
}

/// Names of the pods that the agent knows.
pub(super) async fn known_pods(node: &Node) -> anyhow::Result<Vec<String>> {
    let state: serde_json::Value = serde_json::from_str(&agent_page(node, "/state").await?)?;
    let pods = state["pods"].as_array().context("no list of pods")?;
    let name = |pod: &serde_json::Value| pod["name"].as_str().map(str::to_owned);
    Ok(pods.iter().filter_map(name).collect())
}

/// The agent believes a path only while it leads to the pod, and finds it again later.
async fn path_hidden(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("hidden").await?;
    let hub = world.lab.hub();
    let path = pods.client.path().display().to_string();
    let other = hub.path().display().to_string();
    let hidden = hub.run(&["mount", "--bind", &other, &path]).await?;
    let outcome = while_hidden(world, &pods).await;
    let shown = hub.run(&["umount", &path]).await?;
    expect(
        "a path hidden and shown again",
        format!("{}{}", hidden.stderr, shown.stderr),
        String::is_empty,
    )?;
    outcome?;
    let healed = until(world, "the tunnel", &pods.client, &pods.server, |seen| {
        seen.is_tunnelled() || seen.marker > 0
    });
    expect("never clear text", healed.await?, |seen| seen.marker == 0)
}

async fn while_hidden(world: &World, pods: &Couple) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let (agent, ztunnel) = (part(node.agent())?, part(node.ztunnel())?);
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;
    agent.restart().await?;
    talk.send_line("ztunnel is told to keep the pod").await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("still the tunnel", &seen, |seen| seen.is_tunnelled())?;
    ztunnel.kill().await?;
    agent.kill().await?;
    for part in [agent, ztunnel] {
        part.start().await?;
    }
    for part in [agent, ztunnel] {
        part.ready().await?;
    }
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("refused, as nobody finds the pod", &seen, |seen| seen.is_refused())
}

async fn no_namespace_held(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    for round in 0..3 {
        let name = format!("held-{round}");
        let pod = world.pod(in_namespace("held", &name, 1)).await?;
        world.enrol(&pod).await?;
        if round == 1 {
            part(node.agent())?.restart().await?;
        }
        let found = std::fs::metadata(pod.path())?;
        let namespace = (found.dev(), found.ino());
        for part in [part(node.agent())?, part(node.ztunnel())?] {
            let held = holds(part, namespace).await?;
            expect(
                "the namespace of a captured pod held",
                format!("{}: {held}", part.name()),
                |_| held,
            )?;
        }
        drop(pod);
        world.clear().await?;
        for part in [part(node.agent())?, part(node.ztunnel())?] {
            let what = format!("{} lets the namespace go", part.name());
            let gone = lab::eventually(&what, world.patience, || async {
                (!holds(part, namespace).await.ok()?).then_some(())
            });
            gone.await?;
        }
    }
    Ok(())
}

/// Whether a part has a descriptor of the namespace.
async fn holds(part: &Part, namespace: (u64, u64)) -> anyhow::Result<bool> {
    let pid = part.pid().await.context("the part does not run")?;
    let mut descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(descriptors.any(|descriptor| {
        let found = descriptor.and_then(|descriptor| std::fs::metadata(descriptor.path()));
        found.is_ok_and(|found| (found.dev(), found.ino()) == namespace)
    }))
}
