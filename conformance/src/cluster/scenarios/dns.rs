//! Names, where the cluster has a DNS service.

use std::net::IpAddr;

use lab::cluster::access::paths;
use serde_json::json;

use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::kinds::cluster_ip;
use crate::cluster::pods::{APP_PORT, Distance, PROGRAM, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Resolved;
use crate::scenario::{Skip, expect, expect_within};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "dns-over-udp",
            &[15],
            "a captured pod looks names up over UDP; what does not exist does not",
            over_udp
        ),
        scenario!("dns-over-tcp", &[15], "a captured pod looks names up over TCP", over_tcp),
        scenario!(
            "dns-capture",
            &[15],
            "with lookups captured names are found, and the option can be taken back",
            captured
        ),
        scenario!(
            "srv-lookups",
            &[17],
            "with lookups captured a headless service's named port is found, and leads to its pod",
            srv
        ),
    ]
}

async fn over_udp(ground: &Ground) -> anyhow::Result<()> {
    lookups(ground, "dns-udp", &[]).await
}

async fn over_tcp(ground: &Ground) -> anyhow::Result<()> {
    lookups(ground, "dns-tcp", &["--tcp"]).await
}

async fn lookups(ground: &Ground, name: &str, more: &[&str]) -> anyhow::Result<()> {
    there_is_dns(ground).await?;
    let pods = ground.captured_couple(name, Distance::SameNode).await?;
    known_and_unknown(ground, &pods.client, &pods.namespace, more).await
}

async fn captured(ground: &Ground) -> anyhow::Result<()> {
    there_is_dns(ground).await?;
    let pods = ground.captured_couple("dns-capture", Distance::SameNode).await?;
    let option =
        |value| json!({"metadata": {"annotations": {"ambient.istio.io/dns-capture": value}}});
    for value in [json!("true"), json!(null)] {
        ground.cluster.merge_patch(&pods.client.path(), &option(value)).await?;
        let namespace = &pods.namespace;
        for more in [&[][..], &["--tcp"]] {
            known_and_unknown(ground, &pods.client, namespace, more).await?;
        }
        let gone = paths::core(namespace, "services") + "/named";
        ground.cluster.delete(&gone).await?;
    }
    Ok(())
}

/// The record names the port and another name, which is the pod's own.
async fn srv(ground: &Ground) -> anyhow::Result<()> {
    there_is_dns(ground).await?;
    let pods = ground.captured_couple("srv", Distance::CrossNode).await?;
    let on = json!({"metadata": {"annotations": {"ambient.istio.io/dns-capture": "true"}}});
    ground.cluster.merge_patch(&pods.client.path(), &on).await?;
    ground.service(&pods.namespace, "server", 80, &json!({"clusterIP": "None"})).await?;
    let name = format!("_lines._tcp.server.{}.svc.cluster.local", pods.namespace);
    for more in [&["--srv"][..], &["--srv", "--tcp"]] {
        let asked = async || resolve(ground, &pods.client, &name, more).await;
        let what = format!("a service by {name} {more:?}");
        let found = expect_within(&what, PATIENCE, asked, |resolved| !resolved.services.is_empty());
        let (port, target) = found.await?.services.swap_remove(0);
        let ips = address_of(ground, &pods.client, &target).await?;
        let wanted = format!("{:?}, port {APP_PORT}", [pods.server.ip()]);
        expect(&wanted, format!("{ips:?}, port {port}"), |found| *found == wanted)?;
    }
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

/// A name that there is, and one that there is not.
async fn known_and_unknown(
    ground: &Ground,
    client: &TestPod,
    namespace: &str,
    more: &[&str],
) -> anyhow::Result<()> {
    let service = match ground.service(namespace, "named", 80, &json!({})).await {
        Ok(service) => service,
        // Made for the transport before.
        Err(_) => ground.cluster.get(&(paths::core(namespace, "services") + "/named")).await?,
    };
    let ip = cluster_ip(&service)?;
    let name = format!("named.{namespace}.svc.cluster.local");
    let asked = async || resolve(ground, client, &name, more).await;
    let is_it = |resolved: &Resolved| resolved.ips.contains(&ip);
    expect_within(&format!("{name} is {ip}"), PATIENCE, asked, is_it).await?;
    let name = format!("nowhere.{namespace}.svc.cluster.local");
    let resolved = resolve(ground, client, &name, more).await?;
    expect(&format!("{name} does not exist"), resolved, |resolved| {
        resolved.code == 3 && resolved.ips.is_empty()
    })
}

/// The addresses of a name, once the DNS server knows it.
pub(super) async fn address_of(
    ground: &Ground,
    client: &TestPod,
    name: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    there_is_dns(ground).await?;
    let asked = async || resolve(ground, client, name, &[]).await;
    let what = format!("an address of {name}");
    let found = expect_within(&what, PATIENCE, asked, |resolved| !resolved.ips.is_empty());
    Ok(found.await?.ips)
}

async fn resolve(
    ground: &Ground,
    client: &TestPod,
    name: &str,
    more: &[&str],
) -> anyhow::Result<Resolved> {
    let mut argv = vec![PROGRAM, "app", "resolve", name, "--deadline", "5"];
    // The family of which every service has an address.
    if client.ip().is_ipv6() && !more.contains(&"--srv") {
        argv.push("--v6");
    }
    argv.extend(more);
    let ran = ground.cluster.run(&client.namespace, &client.name, &argv, PATIENCE).await?;
    serde_json::from_str(&ran.stdout)
        .map_err(|_| anyhow::anyhow!("{name}: {}{}", ran.stdout, ran.stderr))
}

/// The service of the name `kube-dns`, as it is called everywhere, with ready endpoints.
async fn there_is_dns(ground: &Ground) -> anyhow::Result<()> {
    let query = [("labelSelector", "kubernetes.io/service-name=kube-dns")];
    let slices = paths::group("discovery.k8s.io/v1", "kube-system", "endpointslices");
    let missing = || Skip("needs CoreDNS (service kube-system/kube-dns with endpoints)".to_owned());
    let slices = ground.cluster.list(&paths::with_query(&slices, &query)).await;
    let slices = slices.map_err(|_| missing())?;
    let mut endpoints =
        slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.any(|endpoint| endpoint["conditions"]["ready"] != false);
    if ready { Ok(()) } else { Err(missing().into()) }
}
