//! The agent dies at each step of what it does to a pod, and the next one finishes it.

use std::ops::RangeInclusive;

use lab::{Part, eventually};

use super::faults::part;
use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, REDIRECTION, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "agent-killed-at-each-step-of-add",
            "an agent killed at any message of an ADD leaves a pod that the next one captures",
            of_add
        ),
        scenario!(
            "agent-killed-at-each-step-of-capture",
            "an agent killed at any message of a capture leaves a pod that the next one captures",
            of_capture
        ),
        scenario!(
            "agent-killed-at-each-step-of-repair",
            "an agent killed at any message of a repair leaves a pod that the next one repairs",
            of_repair
        ),
        scenario!(
            "agent-killed-at-each-step-of-the-hosts-repair",
            "an agent killed at any message of a repair of the node's own rules: the next one repairs",
            of_host_repair
        ),
        scenario!(
            "agent-killed-at-each-step-of-release",
            "an agent killed at any message of a release leaves a pod that the next one empties",
            of_release
        ),
    ]
}

/// Which message of a thread is its last: each of them. A sweep ends with the first that is
/// not reached.
const MESSAGES: RangeInclusive<usize> = 1..=60;

/// Has `act` done by an agent that dies at one of its messages, and has the next agent take
/// over. `false` if the agent had `done` its work before.
async fn dies(
    world: &World,
    number: usize,
    act: impl AsyncFnOnce() -> anyhow::Result<()>,
    done: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let agent = part(world.lab.node(1).agent())?;
    let mut point = agent.kill_at(number).await?;
    act().await?;
    let ended = eventually("the end of the agent or of its work", world.patience, || async {
        match done().await {
            Ok(done) => done.then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    });
    let was_struck = tokio::select! {
        () = point.struck() => true,
        ended = ended => ended?.map(|()| false)?,
    };
    point.end().await;
    succeed(agent).await?;
    Ok(was_struck)
}

/// The next agent takes over from one that is dead, or dying of what it did after its work:
/// who is, does not answer.
async fn succeed(agent: &Part) -> anyhow::Result<()> {
    if agent.is_ready().await {
        return Ok(());
    }
    agent.kill().await?;
    agent.start().await?;
    Ok(agent.ready().await?)
}

/// A sweep that ended at once has shown nothing, and one that did not end not all.
fn died(steps: usize) -> anyhow::Result<()> {
    expect("steps at which the agent died", steps, |steps| (1..*MESSAGES.end()).contains(steps))
}

async fn of_add(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("kill-add").await?;
    let agent = part(world.lab.node(1).agent())?;
    let mut steps = 0;
    for number in MESSAGES {
        let spec = in_namespace("kill-add", &format!("client-{number}"), 1);
        let mut point = agent.kill_at(number).await?;
        let (client, was_struck) = {
            let adding = world.pod(spec.label(MODE_LABEL, "ambient"));
            tokio::pin!(adding);
            tokio::select! {
                client = &mut adding => (client?, false),
                // The runtime tries again, until there is an agent that answers.
                () = point.struck() => {
                    succeed(agent).await?;
                    (adding.await?, true)
                }
            }
        };
        point.end().await;
        succeed(agent).await?;
        let residue = observe::residue(&client).await?;
        expect("rules when the pod starts", residue, |text| text.contains("redirect to :15001"))?;
        world.until_redirection(&client, Some("enabled")).await?;
        observe::tunnelled(world, &client, &server).await?;
        if !was_struck {
            break;
        }
        steps += 1;
    }
    died(steps)
}

async fn of_capture(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("kill-capture").await?;
    let kube = world.lab.kube();
    let mut steps = 0;
    for number in MESSAGES {
        let name = format!("client-{number}");
        let client = world.pod(in_namespace("kill-capture", &name, 1)).await?;
        let label = async || {
            kube.label_pod("kill-capture", &name, MODE_LABEL, Some("ambient")).await?;
            Ok(())
        };
        let advertised = async || {
            let object = kube.pod(client.namespace(), client.name()).await?;
            Ok(object["metadata"]["annotations"][REDIRECTION] == "enabled")
        };
        let was_struck = dies(world, number, label, advertised).await?;
        world.until_redirection(&client, Some("enabled")).await?;
        observe::tunnelled(world, &client, &server).await?;
        if !was_struck {
            break;
        }
        steps += 1;
    }
    died(steps)
}

async fn of_repair(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("kill-repair").await?;
    let rules = async || Ok(pods.client.run(&["nft", "list", "ruleset"]).await?.stdout);
    let intact = rules().await?;
    let is_intact = async || rules().await.map(|rules: String| rules == intact);
    let mut steps = 0;
    for number in MESSAGES {
        let damage = async || {
            let chain = ["nft", "flush", "chain", "inet", "sluice", "guard_out_syn"];
            expect("a damaged chain", pods.client.run(&chain).await?.stderr, String::is_empty)
        };
        let was_struck = dies(world, number, damage, is_intact).await?;
        let repaired = eventually("the rules as they were", world.patience, || async {
            is_intact().await.ok().filter(|intact: &bool| *intact)
        });
        repaired.await?;
        observe::tunnelled(world, &pods.client, &pods.server).await?;
        if !was_struck {
            break;
        }
        steps += 1;
    }
    died(steps)
}

async fn of_host_repair(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let list = ["nft", "list", "chain", "inet", "sluice_host", "nat_post"];
    let rules = async || Ok(node.run(&list).await?.stdout);
    let intact = rules().await?;
    expect("the node's rules", &intact, |rules| rules.contains("snat"))?;
    let is_intact = async || rules().await.map(|rules: String| rules == intact);
    let mut steps = 0;
    for number in MESSAGES {
        let damage = async || {
            let flush = ["nft", "flush", "chain", "inet", "sluice_host", "nat_post"];
            expect("a damaged chain", node.run(&flush).await?.stderr, String::is_empty)
        };
        let was_struck = dies(world, number, damage, is_intact).await?;
        let repaired = eventually("the node's rules as they were", world.patience, || async {
            is_intact().await.ok().filter(|intact: &bool| *intact)
        });
        repaired.await?;
        if !was_struck {
            break;
        }
        steps += 1;
    }
    died(steps)
}

/// A release gives its peers five seconds, so every third of its steps is tried.
async fn of_release(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("kill-release").await?;
    world.may_speak_openly(&pods.client).await?;
    let is_empty = async || Ok(observe::residue(&pods.client).await?.is_empty());
    let mut steps = 0;
    for number in MESSAGES.step_by(3) {
        world.enrol(&pods.client).await?;
        observe::tunnelled(world, &pods.client, &pods.server).await?;
        let label = async || {
            let kube = world.lab.kube();
            kube.label_pod("kill-release", "client", MODE_LABEL, None).await?;
            Ok(())
        };
        let was_struck = dies(world, number, label, is_empty).await?;
        observe::until_empty(world, &pods.client).await?;
        world.until_redirection(&pods.client, None).await?;
        let seen = exchange(world, &pods.client, &pods.server).await?;
        expect("clear text again", &seen, |seen| seen.is_plain())?;
        if !was_struck {
            break;
        }
        steps += 1;
    }
    died(steps)
}
