//! What the node agent costs, and how fast it is: pods that start, pods that run already,
//! looking after them, and repairing them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::{Lab, Node, Options, Part, Subject};
use netns::Fence;

use crate::crowd::{Crowd, Member, inside};
use crate::process::{self, Holds};
use crate::report::{Report, median, quantile};
use crate::town::PATIENCE;

/// Where the agent answers operators.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
/// Pods that start one after the other, and at once.
const ALONE: u8 = 40;
const AT_ONCE: u8 = 100;
/// Pods of a full node.
const FULL: u8 = 250;
/// Pods whose rules are flushed.
const BROKEN: usize = 40;
/// How long the agent is looked at while nothing happens.
const IDLE: Duration = Duration::from_secs(30);

/// A lab of one node with its mesh, and no pod of its own.
pub(crate) struct Ward {
    pub lab: Lab,
    fence: Fence,
}

impl Ward {
    pub(crate) async fn start(subject: Subject) -> anyhow::Result<Self> {
        let subject = Some(subject);
        let options = Options { subject, patience: PATIENCE, nodes: 1, ..Options::default() };
        let lab = Lab::start(options).await.context("bring up the lab")?;
        match (Fence::new(2), lab.start_mesh().await) {
            (Ok(fence), Ok(())) => Ok(Self { lab, fence }),
            (fence, mesh) => {
                lab.teardown().await;
                fence?;
                Err(mesh.err().context("start the mesh")?.into())
            }
        }
    }

    pub(crate) async fn tear_down(self) -> anyhow::Result<()> {
        let left = self.lab.teardown().await;
        ensure!(left.is_clean(), "left behind: {left}");
        Ok(())
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    fn agent(&self) -> anyhow::Result<&Part> {
        self.node().agent().context("a lab without a subject")
    }

    async fn pid(&self) -> anyhow::Result<u32> {
        self.agent()?.pid().await.context("the agent has ended")
    }

    async fn crowd(&self, place: (&'static str, u8), of: (u8, &str)) -> anyhow::Result<Crowd> {
        Crowd::gather((&self.lab, self.node()), &self.fence, place, of).await
    }

    async fn captured(&self) -> anyhow::Result<u64> {
        let (status, text) = self.node().place().http_get(ADMIN, "/metrics").await?;
        ensure!(status == 200, "metrics of the agent: status {status}");
        let line =
            text.lines().find_map(|it| it.strip_prefix("sluice_agent_pods{state=\"captured\"} "));
        Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Waits until so many pods are captured.
    async fn until_captured(&self, pods: u8) -> anyhow::Result<()> {
        let begin = Instant::now();
        // A part that starts does not answer yet.
        while self.captured().await.unwrap_or(0) < u64::from(pods) {
            if begin.elapsed() > PATIENCE {
                bail!("{} of {pods} pods are captured after {PATIENCE:?}", self.captured().await?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Measures it all.
pub(crate) async fn measure(ward: &Ward, report: &mut Report) -> anyhow::Result<()> {
    report.chapter("Pods that start: ADD, as the agent's caller sees it");
    alone(ward, report).await?;
    at_once(ward, report).await?;
    report.chapter("A full node");
    full(ward, report).await
}

async fn alone(ward: &Ward, report: &mut Report) -> anyhow::Result<()> {
    let crowd = ward.crowd(("alone", 1), (ALONE, "ambient")).await?;
    let mut took = Vec::new();
    for member in &crowd.members {
        took.push(crowd.add(member).await?);
    }
    spread(report, "ADD alone", took);
    crowd.disperse(&ward.lab).await
}

async fn at_once(ward: &Ward, report: &mut Report) -> anyhow::Result<()> {
    let crowd = ward.crowd(("together", 2), (AT_ONCE, "ambient")).await?;
    let cpu = process::cpu(ward.pid().await?)?;
    spread(report, &format!("{AT_ONCE} ADDs at once"), crowd.add_all_at_once().await?);
    let cpu = process::cpu(ward.pid().await?)?.saturating_sub(cpu);
    report.add("CPU of the agent's own threads, each", millis(cpu) / f64::from(AT_ONCE), "ms");
    crowd.disperse(&ward.lab).await
}

/// A node that is full of pods, through everything that happens to one.
async fn full(ward: &Ward, report: &mut Report) -> anyhow::Result<()> {
    let crowd = ward.crowd(("full", 3), (FULL, "none")).await?;
    for member in &crowd.members {
        crowd.add(member).await?;
    }
    let before = Holds::of(ward.pid().await?)?;
    ward.agent()?.stop().await?;
    crowd.label(&ward.lab, "ambient").await?;
    let begin = Instant::now();
    ward.agent()?.start().await?;
    ward.until_captured(FULL).await?;
    report.add(
        &format!("{FULL} pods enrolled, from the agent's start"),
        begin.elapsed().as_secs_f64(),
        "s",
    );
    ward.agent()?.stop().await?;
    let begin = Instant::now();
    ward.agent()?.start().await?;
    ward.agent()?.ready().await?;
    ward.until_captured(FULL).await?;
    report.add(
        &format!("{FULL} captured pods found again after a restart"),
        begin.elapsed().as_secs_f64(),
        "s",
    );
    idle(ward, before, report).await?;
    repairs(ward, &crowd, report).await?;
    crowd.disperse(&ward.lab).await
}

async fn idle(ward: &Ward, before: Holds, report: &mut Report) -> anyhow::Result<()> {
    let pid = ward.pid().await?;
    let cpu = process::cpu(pid)?;
    let children = process::children_cpu(pid)?;
    tokio::time::sleep(IDLE).await;
    let own = process::cpu(pid)?.saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64();
    let others = process::children_cpu(pid)?.saturating_sub(children);
    let others = others.as_secs_f64() / IDLE.as_secs_f64();
    report.add(&format!("looking after {FULL} pods, the agent"), own * 100.0, "% of a CPU");
    report.add("programs that it starts for that", others * 100.0, "% of a CPU");
    let now = Holds::of(pid)?;
    report.add("agent, resident", kib(now.rss) / 1024.0, "MiB");
    let grown = now.anonymous.saturating_sub(before.anonymous);
    report.add(
        "a captured pod more than one that is not, anonymous",
        kib(grown) / f64::from(FULL),
        "KiB",
    );
    let more = now.descriptors.saturating_sub(before.descriptors);
    report.add("descriptors of a captured pod", kib(more) / f64::from(FULL), "");
    Ok(())
}

/// Flushes one pod's rules after the other: how long each was open.
async fn repairs(ward: &Ward, crowd: &Crowd, report: &mut Report) -> anyhow::Result<()> {
    let mut took = Vec::new();
    for member in crowd.members.iter().take(BROKEN) {
        took.push(repair(ward, member)?);
        // What was asked of this program meanwhile.
        tokio::task::yield_now().await;
    }
    spread(report, "rules flushed until they are back", took);
    Ok(())
}

fn repair(ward: &Ward, member: &Member) -> anyhow::Result<Duration> {
    let (fence, netns) = (&ward.fence, member.netns());
    inside(fence, &netns, "nft", "flush ruleset")?;
    let begin = Instant::now();
    while inside(fence, &netns, "nft", "list table inet sluice").is_err() {
        ensure!(begin.elapsed() < PATIENCE, "rules are not back after {PATIENCE:?}");
    }
    Ok(begin.elapsed())
}

fn spread(report: &mut Report, what: &str, took: Vec<Duration>) {
    let mut took: Vec<f64> = took.into_iter().map(millis).collect();
    report.add(&format!("{what}, p50"), median(&mut took), "ms");
    report.add(&format!("{what}, p99"), quantile(&mut took, 0.99), "ms");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds")]
fn kib(number: u64) -> f64 {
    number as f64
}
