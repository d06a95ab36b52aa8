//! One ztunnel without a mesh around it: what it costs to start, to know workloads and to
//! serve pods. The mesh comes from a file, and this program is its node agent.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use netns::{Fence, PodNetns};
use tokio::process::Child;

use crate::Plan;
use crate::agent::Agent;
use crate::process::{self, Holds};
use crate::report::{Report, median, quantile};

/// The longest that a ztunnel with a large mesh may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the starts of pods needed has been given back by then.
const AFTER_STARTS: Duration = Duration::from_secs(4);
/// Memory that was needed at the start only has been given back by then.
const SETTLED: Duration = Duration::from_secs(12);

/// A ztunnel that says it is ready.
struct Alone {
    child: Child,
    agent: Agent,
    /// From its start.
    ready: Duration,
    cpu: Duration,
}

impl Alone {
    async fn start(program: &Path, folder: &Path, mesh: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("zds.sock");
        // What the last one was met at.
        let _ = std::fs::remove_file(&socket);
        let texts = [("INPOD_UDS", &socket), ("LOCAL_XDS_PATH", &mesh.to_owned())];
        let mut env = vec![("NODE_NAME", "node1"), ("XDS_ADDRESS", ""), ("RUST_LOG", "warn")];
        for (name, path) in &texts {
            env.push((*name, path.to_str().context("a path that is no text")?));
        }
        let mut child = None;
        let start = Instant::now();
        let agent = Agent::meet(&socket, || {
            child = Some(process::ztunnel(program, &env).context("start ztunnel")?);
            Ok(())
        })
        .await?;
        let child = child.context("it was started")?;
        let pid = child.id().context("ztunnel ended")?;
        tokio::task::block_in_place(|| until_ready(pid))?;
        let (ready, cpu) = (start.elapsed(), process::cpu(pid)?);
        Ok(Self { child, agent, ready, cpu })
    }

    fn holds(&self) -> anyhow::Result<Holds> {
        Ok(Holds::of(self.child.id().context("ztunnel ended")?)?)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

fn until_ready(pid: u32) -> anyhow::Result<()> {
    let fence = Fence::new(1)?;
    let netns = PodNetns::open(Path::new(&format!("/proc/{pid}/ns/net")))?;
    let start = Instant::now();
    loop {
        if let Ok(answer) = fence.run(&netns, ask_readiness)?
            && answer.starts_with("HTTP/1.1 200")
        {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "ztunnel did not get ready");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ask_readiness() -> std::io::Result<String> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, zds::port::READY));
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Writes a mesh of this many workloads on a hundred nodes.
fn write_mesh(folder: &Path, workloads: usize) -> anyhow::Result<PathBuf> {
    let mut text = String::from("workloads:\n");
    for n in 0..workloads {
        let (a, b, c, node) = (n >> 16, (n >> 8) & 255, n & 255, n % 100);
        let (space, app) = (n % 50, n / 10);
        writeln!(
            text,
            "  - {{uid: Kubernetes//Pod/ns-{space}/app-{app}-{n}, name: app-{app}-{n}, \
             namespace: ns-{space}, serviceAccount: app-{app}, workloadIps: [10.{a}.{b}.{c}], \
             protocol: HBONE, node: node{node}, clusterId: Kubernetes, canonicalName: app-{app}, \
             canonicalRevision: v1, workloadName: app-{app}, workloadType: deployment}}"
        )?;
    }
    if workloads == 0 {
        text = "workloads: []\n".to_owned();
    }
    let path = folder.join("mesh.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

pub(crate) async fn measure(
    program: &Path,
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    report.chapter("One ztunnel alone");
    let mesh = write_mesh(folder.path(), 0)?;
    let (mut ready, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        let alone = Alone::start(program, folder.path(), &mesh).await?;
        ready.push(alone.ready.as_secs_f64() * 1e3);
        cpu.push(alone.cpu.as_secs_f64() * 1e3);
        alone.end().await?;
    }
    report.add("start to ready", median(&mut ready), "ms");
    report.add("CPU of a start", median(&mut cpu), "ms");
    let alone = Alone::start(program, folder.path(), &mesh).await?;
    let idle = alone.holds()?;
    report.add("idle, resident", mib(idle.rss), "MiB");
    report.add("idle, anonymous", mib(idle.anonymous), "MiB");
    report.add("idle, threads", count(idle.threads), "");
    pods(&alone, plan, idle, report).await?;
    alone.end().await?;
    for &workloads in plan.workloads {
        let mesh = write_mesh(folder.path(), workloads)?;
        let alone = Alone::start(program, folder.path(), &mesh).await?;
        tokio::time::sleep(SETTLED).await;
        let holds = alone.holds()?;
        report.add(&format!("{workloads} workloads, resident"), mib(holds.rss), "MiB");
        let more = count(holds.anonymous.saturating_sub(idle.anonymous)) * 1024.0;
        report.add(&format!("{workloads} workloads, each"), more / number(workloads), "bytes");
        report.add(&format!("{workloads} workloads, to ready"), alone.ready.as_secs_f64(), "s");
        alone.end().await?;
    }
    Ok(())
}

async fn pods(alone: &Alone, plan: &Plan, idle: Holds, report: &mut Report) -> anyhow::Result<()> {
    let (mut namespaces, mut took) = (Vec::new(), Vec::new());
    for n in 0..plan.pods {
        let netns = PodNetns::scratch()?;
        let add = alone.agent.add(n, &netns).await.with_context(|| format!("add pod {n}"))?;
        took.push(add.as_secs_f64() * 1e3);
        namespaces.push(netns);
    }
    tokio::time::sleep(AFTER_STARTS).await;
    let full = alone.holds()?;
    let pods = number(plan.pods);
    let more = count(full.rss.saturating_sub(idle.rss)) / pods;
    report.add(&format!("a pod ({} of them), resident", plan.pods), more, "KiB");
    let more = count(full.anonymous.saturating_sub(idle.anonymous)) / pods;
    report.add("a pod, anonymous", more, "KiB");
    let more = count(full.descriptors.saturating_sub(idle.descriptors)) / pods;
    report.add("a pod, descriptors", more, "");
    report.add("a pod, add to acknowledged, p50", median(&mut took), "ms");
    report.add("a pod, add to acknowledged, p99", quantile(&mut took, 0.99), "ms");
    let mut took = Vec::new();
    for n in 0..plan.pods {
        took.push(alone.agent.del(n).await?.as_secs_f64() * 1e3);
    }
    report.add("a pod, delete to acknowledged, p50", median(&mut took), "ms");
    drop(namespaces);
    let start = Instant::now();
    while alone.holds()?.descriptors > idle.descriptors {
        if start.elapsed() > SETTLED {
            bail!("descriptors of deleted pods stay: {:?}, before {idle:?}", alone.holds()?);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(crate) fn mib(kib: u64) -> f64 {
    count(kib) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn number(value: usize) -> f64 {
    value as f64
}
