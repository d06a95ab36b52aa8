//! Services of all kinds, and ports of nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use lab::cluster::access::{Port, paths};
use serde_json::json;

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::kinds::{cluster_ip, node_port};
use crate::cluster::patience::eventually;
use crate::cluster::pods::{APP_PORT, Couple, Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect, expect_within};

/// Ports of the services and of the node, which nothing else is likely to want.
const SERVICE_PORT: u16 = 9080;
const HOST_PORT: u16 = 31847;
/// How long what the primary CNI offers may take to be there.
const OFFERED: Duration = Duration::from_secs(20);

/// How long a provider of load balancers gets.
const PROVIDER: Duration = Duration::from_secs(5);
/// Addresses for documentation, which nobody has (RFC 5737, RFC 3849).
const BALANCER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const BALANCER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "cluster-ip",
            &[3, 11],
            "a service's address reaches the proxy as it was dialled, and leads into the tunnel",
            cluster_address
        ),
        scenario!(
            "headless-service",
            &[3],
            "the pods of a headless service are reached through the tunnel",
            headless
        ),
        scenario!("own-service", &[6], "a captured pod reaches itself by its own service", hairpin),
        scenario!(
            "node-port",
            &[14],
            "a NodePort leads to a captured pod, by any node with either traffic policy",
            by_node_port
        ),
        scenario!(
            "node-port-is-not-exempt",
            &[14, 20],
            "with STRICT what comes by a NodePort is turned away like any clear text",
            node_port_strict
        ),
        scenario!(
            "host-port",
            &[14],
            "a hostPort leads to a captured pod, and with STRICT is turned away",
            by_host_port
        ),
        scenario!(
            "load-balancer",
            &[14],
            "an address of a load balancer leads to a captured pod, which sees who called",
            by_load_balancer
        ),
    ]
}

/// Judged by the proxy itself: it writes down the service of what it was asked for. Where
/// something rewrote the address before, it can only know the pod.
async fn cluster_address(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("clusterip", Distance::CrossNode).await?;
    let Couple { namespace, client, server } = &pods;
    let service = ground.service(namespace, "server", SERVICE_PORT, &json!({})).await?;
    let to = SocketAddr::new(cluster_ip(&service)?, SERVICE_PORT);
    let what = "the service's address leads through the tunnel";
    ground.until(what, client, &Target::via(to, server), Seen::is_captured).await?;
    let name = format!("server.{namespace}.svc.");
    let ztunnel = ground.parts.ztunnel()?;
    let ip = client.ip().to_string();
    // The last that was written about what the client opened.
    let outbound = async || {
        let log = ztunnel.log_on(&ground.cluster, &client.node).await;
        let about = |line: &&str| line.contains("outbound") && line.contains(&ip);
        Ok(log.lines().rev().find(about).unwrap_or("no line about the client").to_owned())
    };
    let expected = "the proxy is asked for the service's address. If it is not, something rewrites \
                    addresses when pods connect: on Cilium set socketLB.hostNamespaceOnly=true, on \
                    Calico's eBPF data plane bpfConnectTimeLoadBalancing: Disabled. That is seen";
    expect_within(expected, PATIENCE, outbound, |line| line.contains(&name)).await.map(drop)
}

async fn headless(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("headless", Distance::CrossNode).await?;
    let none = json!({"clusterIP": "None"});
    ground.service(&pods.namespace, "server", APP_PORT, &none).await?;
    // Names of a headless service are those of its pods; the clients dial the pods.
    let name = format!("server.{}.svc.cluster.local", pods.namespace);
    match super::dns::address_of(ground, &pods.client, &name).await {
        Ok(ips) => expect("the pod's address", ips[0].to_string(), |ip| {
            *ip == pods.server.ip().to_string()
        })?,
        Err(error) if error.is::<Skip>() => {}
        Err(error) => return Err(error),
    }
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

async fn hairpin(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("hairpin", Distance::SameNode).await?;
    let service = ground.service(&pods.namespace, "client", SERVICE_PORT, &json!({})).await?;
    let to = SocketAddr::new(cluster_ip(&service)?, SERVICE_PORT);
    ground.until_answered(&pods.client, to, &["--deadline", "5"]).await.map(drop)
}

async fn by_node_port(ground: &Ground) -> anyhow::Result<()> {
    let (pods, outside) = with_outside(ground, "nodeport").await?;
    for policy in ["Cluster", "Local"] {
        let spec = json!({"type": "NodePort", "externalTrafficPolicy": policy,
            "selector": {"app": "server"}});
        let name = format!("server-{}", policy.to_lowercase());
        let service = ground.service(&pods.namespace, &name, SERVICE_PORT, &spec).await?;
        let port = node_port(&service)?;
        // With "Local" only the node of the pod answers.
        let nodes: &[usize] = if policy == "Cluster" { &[1, 2] } else { &[2] };
        for number in nodes {
            let to = SocketAddr::new(node_ip(ground, *number)?, port);
            ground
                .until_answered(&outside, to, &["--deadline", "5"])
                .await
                .with_context(|| format!("externalTrafficPolicy {policy}, by node {number}"))?;
        }
    }
    Ok(())
}

/// The pod declares a probe at the very port: what a node forwards to it is still no probe.
async fn node_port_strict(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("nodeport-strict", &[]).await?;
    let mut server = ground.spec(&namespace, "server", 2)?.label(MODE_LABEL, "ambient");
    server.main.probes.readiness = Some(json!({"tcpSocket": {"port": APP_PORT}}));
    let outside = ground.spec(&namespace, "outside", 1)?;
    let (server, outside) = tokio::try_join!(ground.pod(&server), ground.pod(&outside))?;
    ground.until_redirection(&server, Some("enabled")).await?;
    let spec = json!({"type": "NodePort"});
    let port = node_port(&ground.service(&namespace, "server", SERVICE_PORT, &spec).await?)?;
    let ways =
        [SocketAddr::new(node_ip(ground, 1)?, port), SocketAddr::new(node_ip(ground, 2)?, port)];
    for to in ways {
        ground.until_answered(&outside, to, &["--deadline", "5"]).await?;
    }
    ground.strict(&namespace).await?;
    for to in ways {
        turned_away(ground, &outside, to).await?;
    }
    Ok(())
}

/// First without the mesh: some primary plugins offer host ports only when told to.
async fn by_host_port(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("hostport", &[]).await?;
    let mut server = ground.spec(&namespace, "server", 2)?;
    server.main.ports.push(Port { number: APP_PORT, host: Some(HOST_PORT) });
    let outside = ground.spec(&namespace, "outside", 1)?;
    let (server, outside) = tokio::try_join!(ground.pod(&server), ground.pod(&outside))?;
    let to = SocketAddr::new(node_ip(ground, 2)?, HOST_PORT);
    let more = ["--deadline", "5"];
    let offered = async || {
        let answers = ground.ask(&outside, to, &more).await.ok()?;
        (answers.answered > 0).then_some(())
    };
    if eventually("an answer", OFFERED, offered).await.is_err() {
        let why = "not applicable: the primary CNI offers no host ports here";
        return Err(Skip(why.to_owned()).into());
    }
    ground.set_mode(&server, Some("ambient")).await?;
    ground.until_answered(&outside, to, &more).await?;
    ground.strict(&namespace).await?;
    turned_away(ground, &outside, to).await
}

/// Where nobody gives out addresses of load balancers, the scenario does what a provider does.
async fn by_load_balancer(ground: &Ground) -> anyhow::Result<()> {
    let (pods, outside) = with_outside(ground, "balancer").await?;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "selector": {"app": "server"}});
    let name = "balanced";
    let service = ground.service(&pods.namespace, name, SERVICE_PORT, &spec).await?;
    let path = format!("{}/{name}", paths::core(&pods.namespace, "services"));
    let address = match given_address(ground, &path).await {
        Some(address) => address,
        None => {
            let of_v6 = cluster_ip(&service)?.is_ipv6();
            let ip: IpAddr = if of_v6 { BALANCER_V6.into() } else { BALANCER_V4.into() };
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
            ground.cluster.merge_patch(&format!("{path}/status"), &status).await?;
            ip
        }
    };
    let to = SocketAddr::new(address, SERVICE_PORT);
    let more = ["--deadline", "5"];
    let answers = ground.until_answered(&outside, to, &more).await?;
    expect("the caller's own address arrives", answers, |answers| {
        answers.peers.iter().all(|peer| outside.ips.contains(peer))
    })?;
    ground.until_answered(&pods.client, to, &more).await?;
    ground.strict(&pods.namespace).await?;
    turned_away(ground, &outside, to).await
}

/// What a provider, if there is one, has given before long.
async fn given_address(ground: &Ground, path: &str) -> Option<IpAddr> {
    let given = async || {
        let service = ground.cluster.get(path).await.ok()?;
        service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.parse().ok()
    };
    eventually("an address by a provider", PROVIDER, given).await.ok()
}

async fn turned_away(ground: &Ground, client: &TestPod, to: SocketAddr) -> anyhow::Result<()> {
    let what = "clear text is turned away";
    let more = ["--deadline", "5"];
    ground.until_asked(what, client, to, &more, |answers| answers.answered == 0).await.map(drop)
}

/// A captured couple, and a pod outside the mesh beside the client.
async fn with_outside(ground: &Ground, name: &str) -> anyhow::Result<(Couple, TestPod)> {
    let pods = ground.captured_couple(name, Distance::CrossNode).await?;
    let outside = ground.pod(&ground.spec(&pods.namespace, "outside", 1)?).await?;
    Ok((pods, outside))
}

fn node_ip(ground: &Ground, number: usize) -> anyhow::Result<IpAddr> {
    let node = ground.node(number)?;
    node.ips.first().copied().with_context(|| format!("node {} has no address", node.name))
}
