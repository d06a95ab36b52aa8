//! What happens to a node: sandboxes die, rules go, the API server is away.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use lab::cluster::access::paths;
use serde_json::Value;

use super::probes::{more_probes, probed, still_well};
use super::starting::{asking_first, captured_server, is_captured, watched};
use crate::cluster::exchange::{expect_unread, expect_whole, fresh_marker};
use crate::cluster::ground::{Ground, PATIENCE, START};
use crate::cluster::hands::Hand;
use crate::cluster::patience::eventually;
use crate::cluster::pods::{APP_PORT, Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Killed;
use crate::scenario::{Skip, expect, expect_within};

/// Our table on a node that keeps it from the API server.
const TABLE: &str = "inet sluice_conformance";
/// The kernel forgets what is kept away after this, whoever is there to take it back.
const AWAY: &str = "100s";
/// By then the way is open again in any case.
const OPEN: Duration = Duration::from_secs(160);
/// How long a control plane may take to give up a node; usually under a minute.
const GIVEN_UP: Duration = Duration::from_secs(150);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "sandbox-killed",
            &[33],
            "a pod whose sandbox is killed is captured again before its first connection",
            sandbox_killed
        ),
        scenario!(
            "host-rules-flushed",
            &[53],
            "the node's own rules are deleted and flushed: they come back, and probes pass",
            host_rules
        ),
        scenario!(
            "api-away",
            &[37],
            "a node does not reach the API server: pods go on, nothing escapes, and it heals",
            api_away
        ),
    ]
}

async fn sandbox_killed(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("sandbox", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let hand = ground.hand(1).await?;
    let marker = fresh_marker();
    let spec = asking_first(ground, &namespace, ("client", 1), &server, &marker)?;
    let pod = ground.pod(&spec).await?;
    ground.until_captured(&pod, &server).await?;
    let again = watched(ground, &server, &marker, async {
        let _: Killed = hand.ask(ground, &["kill", "--pod", &pod.uid]).await?;
        let again = |object: &Value| {
            let status = &object["status"];
            let (first, app) =
                (&status["initContainerStatuses"][0], &status["containerStatuses"][0]);
            let restarts = |container: &Value| container["restartCount"].as_u64() > Some(0);
            restarts(first) && restarts(app) && app["ready"] == true
        };
        let what = "all of it started again, its first container too";
        ground.cluster.wait(&pod.path(), what, 2 * START, again).await?;
        Ok(())
    });
    expect_unread(again.await?)?;
    let now = ground.running(&namespace, "client").await?;
    let observed = format!("{} and {}", pod.uid, now.uid);
    expect("it is the same pod", observed, |_| pod.uid == now.uid)?;
    is_captured(ground, &now, &server).await
}

async fn host_rules(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let namespace = ground.namespace("host-rules", &[]).await?;
    ground.strict(&namespace).await?;
    let mut pod = ground.spec(&namespace, "probed", 1)?.label(MODE_LABEL, "ambient");
    probed(&mut pod);
    let pod = ground.pod(&pod).await?;
    ground.until_redirection(&pod, Some("enabled")).await?;
    let hand = ground.hand(1).await?;
    let listed = hand.nft(ground, &["list", "tables"]).await?;
    let tables: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("table ")).collect();
    let tables: Vec<_> = tables.into_iter().filter(|table| table.contains("sluice")).collect();
    if tables.is_empty() {
        return Err(Skip("the mesh has no table on the node".to_owned()).into());
    }
    for verb in ["delete", "flush"] {
        let before = texts(ground, &hand, &tables).await?;
        for table in &tables {
            hand.nft(ground, &[verb, "table", table]).await?;
        }
        let now = async || texts(ground, &hand, &tables).await;
        let expected = format!("after {verb} again\n{before}");
        expect_within(&expected, PATIENCE, now, |now| *now == before).await?;
        more_probes(ground, &pod).await?;
    }
    still_well(ground, &pod).await
}

/// The tables without what they have counted.
async fn texts(ground: &Ground, hand: &Hand, tables: &[&str]) -> anyhow::Result<String> {
    let mut texts = String::new();
    for table in tables {
        texts += &hand.nft(ground, &["--stateless", "list", "table", table]).await?;
    }
    Ok(texts)
}

async fn api_away(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let pods = ground.captured_couple("api-away", Distance::CrossNode).await?;
    let quiet = ground.pod(&ground.spec(&pods.namespace, "quiet", 1)?).await?;
    let hand = ground.hand(1).await?;
    let marker = fresh_marker();
    // Minutes of load are to fit into what observers keep.
    let load = ["--line", marker.as_str(), "--pause", "250"];
    let to = pods.server.addr(APP_PORT);
    let work = async {
        cut(ground, &hand).await?;
        let meanwhile = without_api(ground, (&hand, &quiet), &pods.server, &marker).await;
        let opened = open(ground, &hand).await;
        meanwhile?;
        opened?;
        until_node(ground, &hand.node, &["True"]).await
    };
    let mut answers = None;
    let seen = watched(ground, &pods.server, &marker, async {
        let ((), all) = Box::pin(ground.under_load(&pods.client, (to, &load), work)).await?;
        answers = Some(all);
        Ok(())
    });
    expect_unread(seen.await?)?;
    expect_whole(&answers.context("the load told nothing")?)?;
    // What was asked for meanwhile is done now.
    let late = ground.running(&pods.namespace, "late").await?;
    for pod in [&late, &quiet] {
        is_captured(ground, pod, &pods.server).await?;
    }
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

/// A pod is labelled and another one created that the node cannot hear of.
async fn without_api(
    ground: &Ground,
    (hand, quiet): (&Hand, &TestPod),
    server: &TestPod,
    marker: &str,
) -> anyhow::Result<()> {
    until_node(ground, &hand.node, &["Unknown", "False"]).await?;
    ground.cluster.label(&quiet.path(), MODE_LABEL, Some("ambient")).await?;
    let late = asking_first(ground, &quiet.namespace, ("late", 1), server, marker)?;
    ground.cluster.create_pod(&late).await?;
    ground.expect_redirection(quiet, None).await
}

/// From now on the node's own processes do not reach the API server, nor it them but at their own
/// ports. The kernel's timer ends it, whatever becomes of us.
async fn cut(ground: &Ground, hand: &Hand) -> anyhow::Result<()> {
    let slices = paths::group("discovery.k8s.io/v1", "default", "endpointslices");
    let query = [("labelSelector", "kubernetes.io/service-name=kubernetes")];
    let slices = ground.cluster.list(&paths::with_query(&slices, &query)).await?;
    let servers = servers(&slices);
    if servers.is_empty() {
        return Err(Skip("the service `kubernetes` has no endpoints".to_owned()).into());
    }
    hand.nft(ground, &[&cutting(&servers)]).await.map(drop)
}

fn servers(slices: &[Value]) -> Vec<(IpAddr, u64)> {
    let of = |slice: &Value| -> Vec<(IpAddr, u64)> {
        let port = slice["ports"][0]["port"].as_u64();
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        let ips = endpoints.iter().flat_map(|one| one["addresses"].as_array().cloned());
        let ips = ips.flatten().filter_map(|ip| ip.as_str()?.parse().ok());
        ips.filter_map(|ip| Some((ip, port?))).collect()
    };
    slices.iter().flat_map(of).collect()
}

/// After the node's own translation of addresses, and in both directions.
fn cutting(servers: &[(IpAddr, u64)]) -> String {
    let mut text = format!("add table {TABLE}; ");
    for (set, kind) in [("away4", "ipv4_addr"), ("away6", "ipv6_addr")] {
        text +=
            &format!("add set {TABLE} {set} {{ type {kind} . inet_service; flags timeout; }}; ");
    }
    for (ip, port) in servers {
        let set = if ip.is_ipv4() { "away4" } else { "away6" };
        text += &format!("add element {TABLE} {set} {{ {ip} . {port} timeout {AWAY} }}; ");
    }
    for (hook, address, port) in [("output", "daddr", "dport"), ("input", "saddr", "sport")] {
        text += &format!("add chain {TABLE} {hook} {{ type filter hook {hook} priority 10; }}; ");
        for (family, set) in [("ip", "away4"), ("ip6", "away6")] {
            text +=
                &format!("add rule {TABLE} {hook} {family} {address} . tcp {port} @{set} drop; ");
        }
    }
    text
}

/// Takes that back. A kubelet asks the API server who may run commands on its node, and knows
/// for a while what it was told: where it has forgotten, the kernel's timer has to come first.
async fn open(ground: &Ground, hand: &Hand) -> anyhow::Result<()> {
    // Deleting what is not there would be an error.
    let words = format!("add table {TABLE}; delete table {TABLE}");
    let deleted = async || hand.nft(ground, &[&words]).await.ok();
    eventually("the way to the API server is open", OPEN, deleted).await.map(drop)
}

/// Waits until the node's condition Ready is one of these.
async fn until_node(ground: &Ground, node: &str, wanted: &[&str]) -> anyhow::Result<()> {
    let is_so = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|one| one["type"] == "Ready");
        ready.is_some_and(|one| wanted.iter().any(|wanted| one["status"] == *wanted))
    };
    let what = format!("Ready is {}", wanted.join(" or "));
    ground.cluster.wait(&format!("{}/{node}", paths::NODES), &what, GIVEN_UP, is_so).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_endpoint_is_kept_away_for_a_time() {
        let slices = [json!({
            "ports": [{"port": 6443}],
            "endpoints": [{"addresses": ["172.31.0.1"]}, {"addresses": ["fd00::1"]}],
        })];
        let servers = servers(&slices);
        assert_eq!(servers.len(), 2);
        let text = cutting(&servers);
        for wanted in [
            "away4 { 172.31.0.1 . 6443 timeout 100s }",
            "away6 { fd00::1 . 6443 timeout 100s }",
            "output ip daddr . tcp dport @away4 drop",
            "input ip6 saddr . tcp sport @away6 drop",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
