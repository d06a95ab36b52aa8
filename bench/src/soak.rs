//! Everything that can change, over and over; what is not used any more must be given back.

use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::Pod;
use serde_json::json;
use socket2::SockRef;

use crate::alone::mib;
use crate::load::{Applications, Client, MESSAGE, Work};
use crate::process::Holds;
use crate::town::{NAMESPACE, PATIENCE, Town, metric, pod, until_quiet, ztunnel};

/// Rounds of a process's life after which caches, pools and the allocator are warm.
const WARM: usize = 3;
/// The last looks at a process, of which the least counts: a peak is no growth.
const LAST: usize = 3;
/// The server's ztunnel is killed in the second of so many rounds.
const KILL_EVERY: u64 = 40;
/// Descriptors that come and go with timers, certificates and the control plane.
const DESCRIPTOR_SLACK: f64 = 12.0;
/// The same of tasks, which are counted on all threads and hardly move.
const TASK_SLACK: f64 = 6.0;
/// What memory may grow by, measured on rest, before we call it growth.
const MEMORY_SLACK: f64 = 6.0;
const MEMORY_SHARE: f64 = 1.2;
/// Whose ztunnel, as the lines say it.
const SIDES: [&str; 2] = ["client's", "server's"];
const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/bench/authorizationpolicies";

/// One look at a ztunnel at rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    pid: u32,
    memory: f64,
    descriptors: f64,
    threads: f64,
    tasks: f64,
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, descriptors, threads, tasks, .. } = self;
        write!(f, "{memory:.1} MiB, {descriptors} descriptors, {threads} threads, {tasks} tasks")
    }
}

pub(crate) async fn run(town: &Town, span: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut lives: [Vec<Rest>; 2] = [vec![], vec![]];
    let mut grown_ever = Vec::new();
    let mut round = 0;
    // What is measured before it is warm says nothing.
    while start.elapsed() < span || !lives.iter().all(|life| life.len() >= WARM + LAST) {
        round += 1;
        churn(town, round).await.with_context(|| format!("round {round}"))?;
        until_quiet(&town.lab, PATIENCE).await?;
        let now = [rest(town, 0).await?, rest(town, 1).await?];
        println!("{:>5} s, round {round}: {}", start.elapsed().as_secs(), line(&now));
        for (life, now) in lives.iter_mut().zip(now) {
            // One that was killed is judged, and its successor begins anew.
            if life.last().is_some_and(|last| last.pid != now.pid) {
                grown_ever.extend(grown(life));
                life.clear();
            }
            life.push(now);
        }
    }
    for (side, life) in SIDES.iter().zip(&lives) {
        println!("{side} ztunnel, its last life of {} rounds: {}", life.len(), course(life));
    }
    grown_ever.extend(lives.iter().flat_map(|life| grown(life)));
    ensure!(grown_ever.is_empty(), "grown: {}", grown_ever.join("; "));
    println!("nothing grew in {round} rounds");
    Ok(())
}

fn line(rests: &[Rest]) -> String {
    let each = rests.iter().zip(SIDES).map(|(rest, side)| format!("{side} {rest}"));
    each.collect::<Vec<_>>().join("; ")
}

/// How it was when warm, in the middle, and at the end.
fn course(life: &[Rest]) -> String {
    let warm = WARM.min(life.len()).saturating_sub(1);
    let middle = warm + (life.len() - warm) / 2;
    let looks = [warm, middle, life.len().saturating_sub(1)];
    let looks = looks.iter().filter_map(|look| life.get(*look)).map(ToString::to_string);
    looks.collect::<Vec<_>>().join(" -> ")
}

/// What one ztunnel has more of at the end of its life than when it was warm. Nothing can
/// be said of a short life.
fn grown(life: &[Rest]) -> Vec<String> {
    let Some(warm) = life.get(WARM - 1).filter(|_| life.len() >= WARM + LAST) else {
        return Vec::new();
    };
    let last = &life[life.len() - LAST..];
    let least = |of: fn(&Rest) -> f64| last.iter().map(of).fold(f64::INFINITY, f64::min);
    let most = (warm.memory * MEMORY_SHARE).max(warm.memory + MEMORY_SLACK);
    let all = [
        ("MiB resident", warm.memory, least(|rest| rest.memory), most),
        (
            "descriptors",
            warm.descriptors,
            least(|rest| rest.descriptors),
            warm.descriptors + DESCRIPTOR_SLACK,
        ),
        ("threads", warm.threads, least(|rest| rest.threads), warm.threads),
        ("tasks", warm.tasks, least(|rest| rest.tasks), warm.tasks + TASK_SLACK),
    ];
    all.into_iter()
        .filter(|(_, _, has, most)| has > most)
        .map(|(what, had, has, _)| format!("process {}: {what} {had} -> {has}", warm.pid))
        .collect()
}

async fn rest(town: &Town, side: u8) -> anyhow::Result<Rest> {
    let node = town.lab.node(side + 1);
    let pid = ztunnel(node)?.pid().await.context("a ztunnel ended by itself")?;
    let holds = Holds::of(pid)?;
    let [descriptors, threads] = [holds.descriptors, holds.threads].map(crate::alone::count);
    let tasks = metric(node, "tokio_alive_tasks", "").await?;
    Ok(Rest { pid, memory: mib(holds.rss), descriptors, threads, tasks })
}

/// One round: a pod comes, everybody talks in every way, things break, the pod goes.
async fn churn(town: &Town, round: u64) -> anyhow::Result<()> {
    let visitor = pod(&town.lab, &format!("visitor-{round}"), 2, "ambient").await?;
    let applications = Applications::start(&town.fence, visitor.place().netns())?;
    let to_visitor = Client { netns: town.captured.client.netns.clone(), to: visitor.ip() };
    let name = format!("soak-{round}");
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9"]}}]}]},
    });
    town.lab.kube().create(POLICIES, &policy).await?;
    tokio::task::block_in_place(|| -> anyhow::Result<()> {
        town.captured.client.work(Work::Connect, 4, Duration::from_millis(500))?;
        town.captured.client.work(Work::Bulk, 2, Duration::from_millis(300))?;
        endings(&town.captured.client, 25)?;
        // Peers may not know it yet; then this goes past the tunnel, and counts as well.
        endings(&to_visitor, 5)
    })?;
    if round % 3 == 1 {
        without_control(town).await?;
    }
    if round % KILL_EVERY == 2 {
        peer_killed(town).await?;
    }
    town.lab.kube().delete(&format!("{POLICIES}/{name}")).await?;
    town.captured.applications.let_go();
    leave(town, visitor, applications, &to_visitor).await
}

/// Connections that end in all the ways there are.
fn endings(client: &Client, times: usize) -> anyhow::Result<()> {
    for _ in 0..times {
        // In good order.
        drop(client.keep()?);
        // One direction first.
        let mut half = client.talk()?;
        half.write_all(b"T")?;
        half.write_all(&[1; MESSAGE])?;
        half.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        half.read_to_end(&mut answer)?;
        ensure!(answer.len() == MESSAGE, "half-closed, {} bytes came back", answer.len());
        // Torn.
        let torn = client.keep()?;
        SockRef::from(&torn).set_linger(Some(Duration::ZERO))?;
        drop(torn);
        // With an answer that nobody reads.
        let mut rude = client.talk()?;
        rude.write_all(b"T")?;
        rude.write_all(&[1; 4 * MESSAGE])?;
        drop(rude);
    }
    Ok(())
}

/// The control plane's connections are reset and refused for a moment.
async fn without_control(town: &Town) -> anyhow::Result<()> {
    let rules = "table inet soak { chain in { type filter hook input priority 0; \
                 tcp dport 15012 reject with tcp reset; }; }";
    command(town, &["nft", rules]).await?;
    let worked = tokio::task::block_in_place(|| {
        town.captured.client.work(Work::Connect, 2, Duration::from_secs(1))
    });
    command(town, &["nft", "delete table inet soak"]).await?;
    worked.context("without the control plane")?;
    Ok(())
}

async fn command(town: &Town, argv: &[&str]) -> anyhow::Result<()> {
    let ran = town.lab.hub().run(argv).await?;
    ensure!(ran.ok(), "{argv:?}: {}", ran.stderr);
    Ok(())
}

/// The server's ztunnel dies while connections are open, and comes back.
async fn peer_killed(town: &Town) -> anyhow::Result<()> {
    let kept: Result<Vec<_>, _> =
        tokio::task::block_in_place(|| (0..20).map(|_| town.captured.client.keep()).collect());
    let mut kept = kept?;
    let peer = ztunnel(town.lab.node(2))?;
    peer.kill().await?;
    for stream in &mut kept {
        let heard = tokio::task::block_in_place(|| stream.read(&mut [0; 1]));
        if !matches!(heard, Ok(0) | Err(_)) {
            bail!("bytes out of nowhere after the peer died");
        }
    }
    peer.start().await?;
    peer.ready().await?;
    town.captured.applications.let_go();
    lab::eventually("traffic after the peer came back", PATIENCE, || async {
        tokio::task::block_in_place(|| town.captured.client.keep()).ok()
    })
    .await?;
    Ok(())
}

/// The pod goes while a connection to it is open.
async fn leave(
    town: &Town,
    visitor: Pod,
    applications: Applications,
    client: &Client,
) -> anyhow::Result<()> {
    let open = tokio::task::block_in_place(|| client.keep())?;
    drop(applications);
    town.lab.delete_pod(visitor).await?;
    drop(open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Rest = Rest { pid: 1, memory: 20.0, descriptors: 60.0, threads: 6.0, tasks: 30.0 };

    /// Warm and steady, then these.
    fn life(then: &[Rest]) -> Vec<Rest> {
        [&[REST; WARM], then].concat()
    }

    #[test]
    fn what_stays_within_its_slack_or_comes_back_has_not_grown() {
        let now = Rest { memory: 24.0, descriptors: 70.0, ..REST };
        let peak = Rest { memory: 90.0, descriptors: 700.0, ..REST };
        assert!(grown(&life(&[peak, now, peak])).is_empty());
    }

    #[test]
    fn each_thing_that_grows_is_named() {
        let now = Rest { pid: 1, memory: 60.0, descriptors: 90.0, threads: 7.0, tasks: 99.0 };
        let told = grown(&life(&[now; LAST])).join("\n");
        for what in
            ["resident 20 -> 60", "descriptors 60 -> 90", "threads 6 -> 7", "tasks 30 -> 99"]
        {
            assert!(told.contains(what), "{what} is not in {told}");
        }
    }

    #[test]
    fn the_course_of_a_life_begins_when_it_is_warm() {
        let cold = Rest { memory: 9.0, ..REST };
        let [middle, last] = [21.0, 22.0].map(|memory| Rest { memory, ..REST });
        let told = course(&[cold, cold, REST, middle, last]);
        let memories: Vec<_> = told.split(" -> ").map(|look| look.split(' ').next()).collect();
        assert_eq!(memories, [Some("20.0"), Some("21.0"), Some("22.0")], "{told}");
        assert_eq!(course(&[]), "");
    }

    #[test]
    fn a_short_life_is_not_judged() {
        let now = Rest { memory: 600.0, ..REST };
        assert!(grown(&[REST, now, now]).is_empty());
    }
}
