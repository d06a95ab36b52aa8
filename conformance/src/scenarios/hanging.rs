//! Parts that hang: they are there, take connections, and do not answer.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{Part, PodSpec, TryAgain, eventually};

use super::faults::part;
use super::odd_pods::known_pods;
use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

/// The plugin gives up after 5 s, and less than one for the DEL that follows; a loaded machine
/// takes some more.
const BOUND: Duration = Duration::from_secs(20);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "agent-hangs",
        "while the agent hangs pods do not start (code 11, in time), except in excluded namespaces",
        agent_hangs
    )]
}

async fn agent_hangs(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("hangs").await?;
    let node = world.lab.node(1);
    let agent = part(node.agent())?;
    while_stopped(world, agent, async {
        for spec in [
            in_namespace("hangs", "labelled", 1).label(MODE_LABEL, "ambient"),
            in_namespace("hangs", "plain", 1),
            in_namespace("never-heard-of", "plain", 1),
        ] {
            is_refused_in_time(world, spec).await?;
        }
        let began = Instant::now();
        let passes = world.pod(in_namespace("kube-system", "passes", 1)).await?;
        let took = format!("{:?}", began.elapsed());
        expect("a start that asks nobody", took, |_| began.elapsed() < BOUND)?;
        expect("nothing in it", observe::residue(&passes).await?, String::is_empty)?;
        let verdict = pods.client.check().await;
        expect("CHECK: nobody can tell", format!("{verdict:?}"), |_| verdict.is_err())?;
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("the tunnel, as before", &seen, |seen| seen.is_tunnelled())
    })
    .await?;
    agent.ready().await?;
    // What it found waiting was given up long ago.
    let forgotten = eventually("the agent knows none that was refused", world.patience, || async {
        let known = known_pods(node).await.ok()?;
        (!known.iter().any(|name| name == "labelled" || name == "plain")).then_some(())
    });
    forgotten.await?;
    let labelled = in_namespace("hangs", "labelled", 1).label(MODE_LABEL, "ambient");
    let labelled = world.pod(labelled).await?;
    world.until_redirection(&labelled, Some("enabled")).await?;
    pods.client.check().await?;
    observe::tunnelled(world, &labelled, &pods.server).await
}

async fn is_refused_in_time(world: &World, spec: PodSpec) -> anyhow::Result<()> {
    let began = Instant::now();
    let refused = world.lab.create_pod(spec.try_again(TryAgain::Never)).await;
    let took = began.elapsed();
    let error = refused.err().context("it started without anybody's word")?;
    expect("CNI code 11", &error, |error| error.cni_code() == Some(11))?;
    expect("words about the agent", error.to_string(), |words| {
        words.contains("the node agent at") && words.contains("did not answer within")
    })?;
    expect("an answer in time", format!("{took:?}"), |_| took < BOUND)
}

/// Does `work` while a process of node 1 is stopped: its sockets are there, and nobody reads them.
/// Should the work never end, the part is found not to be ready, and started again.
pub(super) async fn while_stopped<T>(
    world: &World,
    part: &Part,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    signal(world, part, "-STOP").await?;
    let done = Box::pin(work).await;
    signal(world, part, "-CONT").await?;
    done
}

/// Sends a signal to a part of node 1.
pub(super) async fn signal(world: &World, part: &Part, signal: &str) -> anyhow::Result<()> {
    let pid = part.pid().await.with_context(|| format!("{} does not run", part.name()))?;
    let sent = world.lab.node(1).run(&["kill", signal, &pid.to_string()]).await?;
    expect("a signal sent", sent.stderr, String::is_empty)
}
