//! Name lookups of pods whose lookups are redirected, each a single datagram: what is lost
//! is seen.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use lab::Pod;
use serde_json::json;
use tokio::time::Instant;

use super::faults::part;
use super::handover::replace;
use super::services::Service;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

/// Annotation that has a pod's lookups redirected.
pub(super) const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// Applications that ask at the same time.
const AT_ONCE: usize = 4;
/// A load that nobody ends ends by itself.
const LONGEST: Duration = Duration::from_secs(60);
const MOST: usize = 20_000;
/// Response codes.
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "ztunnel-upgrade-loses-no-lookup",
            "two ztunnels at once under lookups: every single datagram is answered",
            upgrade
        ),
        scenario!(
            "lookups-wait-for-the-next-ztunnel",
            "a lookup waits for the next ztunnel, and fails in time when none comes",
            waiting
        ),
    ]
}

/// A pod whose lookups are redirected, and a service that it asks for.
struct Asking {
    client: Arc<Pod>,
    service: Service,
    query: Vec<u8>,
    /// The resolver that it asks: an address of another node, where nobody listens.
    resolver: SocketAddr,
}

impl Asking {
    async fn make(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let spec = in_namespace(namespace, "client", 1).label(MODE_LABEL, "ambient");
        let client = world.pod(spec.annotation(DNS_CAPTURE, "true")).await?;
        world.until_redirection(&client, Some("enabled")).await?;
        let elsewhere = world.pod(in_namespace(namespace, "elsewhere", 2)).await?;
        let service = Service::create(world, namespace, json!({})).await?;
        let query = query(&format!("shop.{namespace}.svc.cluster.local"), service.addresses[0]);
        let asking = Self { client, service, query, resolver: elsewhere.addr(53) };
        let known = || async { asking.ask().await.ok() };
        lab::eventually("the service's address", world.patience, known).await?;
        Ok(asking)
    }

    /// Asks once.
    async fn ask(&self) -> anyhow::Result<()> {
        let answer = self.client.ask(self.resolver, &self.query).await?;
        let octets = match self.service.addresses[0] {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let is_right = |it: &Vec<u8>| code(it) == Some(NO_ERROR) && it.ends_with(&octets);
        expect("the service's address", Bytes(answer), |Bytes(answer)| is_right(answer))
    }

    /// The pod's sockets on the name server's port.
    async fn sockets(&self) -> anyhow::Result<Vec<String>> {
        let tables = ["tcp", "tcp6", "udp", "udp6"].map(|name| format!("/proc/self/net/{name}"));
        let argv: Vec<_> = ["cat"].into_iter().chain(tables.iter().map(String::as_str)).collect();
        let text = self.client.run(&argv).await?.stdout;
        // The fields: number, local address, peer, ..., inode the tenth.
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = |row: &Vec<&str>| {
            row.len() > 9 && row[1].ends_with(":3ACD") && row[2].ends_with(":0000")
        };
        let mut inodes: Vec<_> = rows.filter(ours).map(|row| row[9].to_owned()).collect();
        inodes.sort();
        Ok(inodes)
    }

    /// Asks all the time while `work` goes on; how often, and why it failed.
    async fn during<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(usize, Vec<String>)> {
        let over = AtomicBool::new(false);
        let all = join_all((0..AT_ONCE).map(|_| self.ask_until(&over)));
        let work = async {
            let done = work.await;
            over.store(true, Ordering::Relaxed);
            done
        };
        let (done, asked) = tokio::join!(work, all);
        done?;
        let count = asked.iter().map(|(count, _)| count).sum();
        Ok((count, asked.into_iter().flat_map(|(_, failures)| failures).collect()))
    }

    async fn ask_until(&self, over: &AtomicBool) -> (usize, Vec<String>) {
        let (mut count, mut failures, end) = (0, Vec::new(), Instant::now() + LONGEST);
        while !over.load(Ordering::Relaxed) && Instant::now() < end && count < MOST {
            count += 1;
            failures.extend(self.ask().await.err().map(|error| format!("{error:#}")));
        }
        (count, failures)
    }
}

async fn upgrade(world: &World) -> anyhow::Result<()> {
    let asking = Asking::make(world, "asking").await?;
    let node = world.lab.node(1);
    let (old, new) = (part(node.ztunnel())?, part(node.next_ztunnel())?);
    let before = asking.sockets().await?;
    expect("a name server of both families", before.len(), |count| *count == 4)?;
    // There and back, so that the next scenario finds what this one found.
    for [old, new] in [[old, new], [new, old]] {
        let (count, failures) = asking.during(Box::pin(replace(old, new, None))).await?;
        expect("lookups", count, |count| *count > 0)?;
        let failed = format!("{} of {count} failed, {:?}", failures.len(), failures.first());
        expect("every lookup answered", failed, |_| failures.is_empty())?;
    }
    let after = asking.sockets().await?;
    expect("the same sockets", format!("{before:?} {after:?}"), |_| before == after)?;
    asking.service.delete(world).await
}

async fn waiting(world: &World) -> anyhow::Result<()> {
    let asking = Asking::make(world, "patience").await?;
    let node = world.lab.node(1);
    let (agent, ztunnel) = (part(node.agent())?, part(node.ztunnel())?);
    let before = asking.sockets().await?;
    // A restarted agent has them back.
    agent.kill().await?;
    agent.start().await?;
    agent.ready().await?;
    ztunnel.kill().await?;
    let held = asking.sockets().await?;
    expect("the agent's sockets", format!("{before:?} {held:?}"), |_| before == held)?;
    let (asked, started) = tokio::join!(asking.ask(), ztunnel.start());
    started?;
    asked.context("a lookup that was made while ztunnel was dead")?;
    ztunnel.ready().await?;

    ztunnel.kill().await?;
    let answer = asking.client.ask(asking.resolver, &asking.query).await?;
    expect("a failure and no silence", Bytes(answer), |Bytes(answer)| {
        code(answer) == Some(SERVER_FAILURE)
    })?;
    ztunnel.start().await?;
    ztunnel.ready().await?;
    asking.ask().await?;
    asking.service.delete(world).await
}

/// A question for the addresses of `name`, of the family of `of`.
pub(super) fn query(name: &str, of: IpAddr) -> Vec<u8> {
    let kind = if of.is_ipv4() { 1 } else { 28 };
    let mut query = vec![0x5a, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        // Labels here are short.
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind, 0, 1]);
    query
}

fn code(answer: &[u8]) -> Option<u8> {
    answer.get(3).map(|byte| byte & 0x0f)
}

/// An answer, for reports.
struct Bytes(Vec<u8>);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}
