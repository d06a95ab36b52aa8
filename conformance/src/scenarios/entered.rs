//! Where pods are found by their processes: one in another's namespace leads nobody astray.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::Context;
use lab::{Inhabitant, Place, Pod, eventually};

use super::faults::part;
use super::odd_pods::agent_page;
use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "processes-in-others-namespaces",
        "a pod's processes in namespaces of others, the node's too: only its own is ever written in",
        entered
    )]
}

async fn entered(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("entered").await?;
    let plain = world.pod(in_namespace("entered", "plain", 1)).await?;
    let roaming = world.pod(in_namespace("entered", "roaming", 1)).await?;
    let node = world.lab.node(1);
    let mut seen = Vec::new();
    for (place, pod) in [
        (node.place(), &roaming),
        (pods.client.place(), &roaming),
        (plain.place(), &roaming),
        (roaming.place(), &roaming),
        (pods.client.place(), &pods.client),
        (plain.place(), &plain),
    ] {
        seen.push(Shown::living(world, place, pod).await?);
    }
    forget_where_pods_are(world).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;

    let others = [node.place(), pods.client.place(), plain.place()];
    let before = all(&others).await?;
    world.enrol(&roaming).await?;
    observe::tunnelled(world, &roaming, &pods.server).await?;
    expect("others as they were", news(&before, &all(&others).await?), String::is_empty)?;
    world.release(&roaming).await?;
    observe::until_empty(world, &roaming).await?;
    expect("others as they were", news(&before, &all(&others).await?), String::is_empty)?;
    with_its_address_elsewhere(world, &roaming, &plain).await?;
    expect("others as they were", news(&before, &all(&others).await?), String::is_empty)
}

/// Somebody has given a namespace of his own the address of `roaming`.
async fn with_its_address_elsewhere(
    world: &World,
    roaming: &Pod,
    plain: &Pod,
) -> anyhow::Result<()> {
    let decoy = world.lab.container("decoy").await?;
    let address = format!("{}/32", roaming.ip());
    let ran = decoy.place().run(&["ip", "address", "add", &address, "dev", "lo"]).await?;
    expect("an address", ran.stderr, String::is_empty)?;
    let empty = all(&[decoy.place()]).await?;

    // Of another pod: what it has given itself counts for nothing.
    let theirs = Shown::living(world, decoy.place(), plain).await?;
    world.enrol(roaming).await?;
    expect("nothing in it", news(&empty, &all(&[decoy.place()]).await?), String::is_empty)?;
    world.release(roaming).await?;
    observe::until_empty(world, roaming).await?;
    drop(theirs);

    // Of the pod itself: nobody can tell the two apart, so neither is written in.
    let own = Shown::living(world, decoy.place(), roaming).await?;
    let (namespace, name) = (roaming.namespace(), roaming.name());
    world.lab.kube().label_pod(namespace, name, MODE_LABEL, Some("ambient")).await?;
    let told = eventually("the agent says that there are two", world.patience, || async {
        let state = agent_page(world.lab.node(1), "/state").await.ok()?;
        state.contains("several network namespaces").then_some(())
    });
    told.await?;
    expect("nothing in it", news(&empty, &all(&[decoy.place()]).await?), String::is_empty)?;
    expect("nor in the pod", observe::residue(roaming).await?, String::is_empty)?;
    drop(own);
    world.until_redirection(roaming, Some("enabled")).await?;
    expect("nothing in it", news(&empty, &all(&[decoy.place()]).await?), String::is_empty)
}

/// Neither its own record nor a ztunnel tells the next agent where pods are.
async fn forget_where_pods_are(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let parts = [part(node.agent())?, part(node.ztunnel())?];
    for part in parts {
        part.kill().await?;
    }
    std::fs::remove_file(node.agent_folder().join("pods.json")).context("the agent's record")?;
    for part in parts {
        part.start().await?;
    }
    for part in parts {
        part.ready().await?;
    }
    tested(world).await
}

/// The agent's own test of probes, which it makes as it starts, has come and gone: it is seen on
/// the node.
async fn tested(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let begun = || async {
        let page = agent_page(node, "/metrics").await.ok()?;
        page.contains("sluice_agent_probe_self_test{family=\"IPv4\"} 1").then_some(())
    };
    eventually("the agent's test of probes", world.patience, begun).await?;
    let over = || async {
        let links = node.run(&["ip", "-o", "link"]).await.ok()?.stdout;
        let rules = node.run(&["nft", "list", "ruleset"]).await.ok()?.stdout;
        (!links.contains("sluice-probe") && !rules.contains("169.254.7.126")).then_some(())
    };
    eventually("the end of that test", world.patience, over).await?;
    Ok(())
}

/// A process that the agent can see: it lives in one namespace, and its control group says which
/// pod it was started for.
struct Shown {
    folder: PathBuf,
    _process: Inhabitant,
}

impl Shown {
    async fn living(world: &World, place: &Place, pod: &Pod) -> anyhow::Result<Self> {
        let process = place.inhabit().await?;
        let folder = world.lab.node(1).processes_folder().join(process.pid().to_string());
        std::fs::create_dir_all(&folder)?;
        symlink(format!("/proc/{}/ns", process.pid()), folder.join("ns"))?;
        let group = format!("0::/kubepods/besteffort/pod{}/c0ffee\n", pod.uid());
        std::fs::write(folder.join("cgroup"), group)?;
        Ok(Self { folder, _process: process })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // A folder that stays leads to a process that is gone.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The lines that are in one of two listings only, or nothing when these are the same bytes.
fn news(before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let only = |of: &str, not: &str| -> Vec<String> {
        of.lines()
            .filter(|line| !not.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect()
    };
    format!("gone: {:?}; new: {:?}", only(before, after), only(after, before))
}

/// All that could be written in these places, as text. The kernel's own IPv6 routes come late.
async fn all(places: &[&Place]) -> anyhow::Result<String> {
    let mut text = String::new();
    for place in places {
        for words in [
            &["nft", "-s", "list", "ruleset"][..],
            &["ip", "-4", "rule"],
            &["ip", "-6", "rule"],
            &["ip", "-4", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "1337"],
            &["ss", "-Htln"],
        ] {
            let ran = place.run(words).await?;
            // A table that there is not is an error, and one more thing to compare.
            let told = ran.stdout + &ran.stderr;
            text.push_str(&format!("# {} {}\n{}", place.name(), words.join(" "), told));
        }
    }
    Ok(text)
}
