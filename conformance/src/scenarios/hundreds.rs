//! Pods that come and go by the hundred: what they have cost is given back.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::Part;

use super::faults::part;
use super::odd_pods::known_pods;
use crate::scenario::{Scenario, expect_within, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

/// So many at a time, and so often; before the first count, once.
const AT_ONCE: usize = 20;
const ROUNDS: usize = 10;
/// What the names of the pods begin with.
const NAME: &str = "one-of-hundreds-";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "hundreds-of-pods-leave-nothing",
        "after two hundred pods there are as many descriptors, namespaces and mounts as before",
        hundreds
    )]
}

async fn hundreds(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let parts = [part(node.agent())?, part(node.ztunnel())?];
    // What is made once and kept, whoever comes, is there after that.
    come_and_go(world, "first").await?;
    let before = settled(world, parts, "nothing remembered", |_| true).await?;
    for round in 0..ROUNDS {
        come_and_go(world, &format!("round-{round}")).await?;
    }
    let no_more = format!("no more than before: {before}");
    settled(world, parts, &no_more, |counts| counts.is_within(&before)).await?;
    Ok(())
}

async fn come_and_go(world: &World, round: &str) -> anyhow::Result<()> {
    let labelled = (0..AT_ONCE)
        .map(|number| in_namespace("hundreds", &format!("{NAME}{round}-{number}"), 1))
        .map(|spec| world.lab.create_pod(spec.label(MODE_LABEL, "ambient")));
    let pods = try_join_all(labelled).await?;
    try_join_all(pods.into_iter().map(|pod| world.lab.delete_pod(pod))).await?;
    Ok(())
}

/// What one pod after the other could leave behind.
#[derive(Debug)]
struct Counts {
    /// Of agent and ztunnel; sockets in a pod and handles of its namespace are among them.
    descriptors: [usize; 2],
    /// Namespaces with a name in the lab.
    named: usize,
    mounts: usize,
    /// Interfaces of the node, whose other ends were in pods.
    interfaces: usize,
    /// Pods that the agent keeps in mind, or has written down.
    remembered: String,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors: [agent, ztunnel], named, mounts, interfaces, remembered } = self;
        write!(
            f,
            "descriptors of the agent {agent}, of ztunnel {ztunnel}; {named} namespaces, {mounts} \
             mounts, {interfaces} interfaces; remembered: {remembered:?}"
        )
    }
}

/// Descriptors that come and go with connections to the API and the control plane.
const PLAY: usize = 8;

impl Counts {
    async fn of(world: &World, parts: [&Part; 2]) -> anyhow::Result<Self> {
        let node = world.lab.node(1);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let own = world.lab.folder().display().to_string();
        let links = node.run(&["ip", "-o", "link"]).await?.stdout;
        let records = std::fs::read(node.agent_folder().join("pods.json"))?;
        Ok(Self {
            descriptors: [descriptors(parts[0]).await?, descriptors(parts[1]).await?],
            named: entries(&world.lab.folder().join("netns"))?,
            mounts: mounts.lines().filter(|line| line.contains(&own)).count(),
            interfaces: links.lines().count(),
            remembered: kept_in_mind(known_pods(node).await?) + &written_down(&records)?,
        })
    }

    /// Exactly as many, but for a few descriptors.
    fn is_within(&self, before: &Self) -> bool {
        let few = |at: usize| self.descriptors[at] <= before.descriptors[at] + PLAY;
        let rest = |it: &Self| (it.named, it.mounts, it.interfaces);
        few(0) && few(1) && rest(self) == rest(before)
    }
}

/// The counts when nothing of the last pods is left, and they are as wanted.
async fn settled(
    world: &World,
    parts: [&Part; 2],
    expected: &str,
    wanted: impl Fn(&Counts) -> bool,
) -> anyhow::Result<Counts> {
    let holds = |counts: &Counts| counts.remembered.is_empty() && wanted(counts);
    expect_within(expected, world.patience, async || Counts::of(world, parts).await, holds).await
}

/// Those of ours: ztunnel is a pod too.
fn kept_in_mind(known: Vec<String>) -> String {
    known.into_iter().filter(|name| name.starts_with(NAME)).collect()
}

/// The pods of the agent's records.
fn written_down(records: &[u8]) -> anyhow::Result<String> {
    let records: serde_json::Value = serde_json::from_slice(records)?;
    let pods = records["pods"].as_array().context("no list of recorded pods")?;
    Ok(pods.iter().map(ToString::to_string).collect())
}

async fn descriptors(part: &Part) -> anyhow::Result<usize> {
    let pid = part.pid().await.context("the part does not run")?;
    entries(Path::new(&format!("/proc/{pid}/fd")))
}

fn entries(folder: &Path) -> anyhow::Result<usize> {
    let listed = std::fs::read_dir(folder);
    Ok(listed.with_context(|| format!("list {}", folder.display()))?.count())
}
