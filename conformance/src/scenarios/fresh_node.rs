//! A node that comes into the cluster while pods of the mesh wait for it already.

use std::sync::Arc;

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::{Pod, eventually};

use super::faults::part;
use super::passing_through::empty;
use crate::observe::{self, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{HBONE_PORT, MODE_LABEL, World, in_namespace};

/// Pods that wait.
const WAITING: usize = 6;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "fresh-node-with-waiting-pods",
        "pods that wait for a node without agent and ztunnel start captured when these have come",
        waiting
    )]
}

async fn waiting(world: &World) -> anyhow::Result<()> {
    let (server, app) = world.captured_server("fresh").await?;
    let node = world.lab.node(1);
    let parts = [part(node.agent())?, part(node.ztunnel())?];
    // Of nobody who lives: no pod of another scenario is left.
    let kept = empty(node, parts).await?;
    std::fs::remove_dir_all(kept)?;
    let sniffer = world.lab.sniff_wire(1).await?;
    let window = sniffer.window().await?;
    let starting = (0..WAITING).map(|number| speaks_at_once(world, &server, number));
    // The agent first, alone: it must not let anybody in without a ztunnel.
    let arrive = async {
        for part in parts {
            tried_again(world).await?;
            part.start().await?;
        }
        for part in parts {
            part.ready().await?;
        }
        anyhow::Ok(())
    };
    let (pods, arrived) = tokio::join!(try_join_all(starting), arrive);
    let pods = pods?;
    arrived?;
    expect("all at the server", app.connections(), |count| *count >= WAITING)?;
    let seen = window.close().await?;
    for pod in &pods {
        let open = seen.between(pod.ips(), server.ips()).tcp_without_port(HBONE_PORT);
        expect("packets past the tunnel", open, |count| *count == 0)?;
    }
    Ok(())
}

/// As an application does: as soon as it runs, it has something to say.
async fn speaks_at_once(world: &World, server: &Pod, number: usize) -> anyhow::Result<Arc<Pod>> {
    let spec = in_namespace("fresh", &format!("pod-{number}"), 1).label(MODE_LABEL, "ambient");
    let pod = world.pod(spec).await?;
    let rules = observe::residue(&pod).await?;
    expect("rules as the pod starts", rules, |text| text.contains("redirect to :15001"))?;
    let first =
        until(world, "the tunnel", &pod, server, |seen| seen.is_tunnelled() || seen.marker > 0);
    expect("never clear text", first.await?, |seen| seen.marker == 0)?;
    Ok(pod)
}

/// Waits until more sandboxes were made than there are pods: some were refused, and come again.
async fn tried_again(world: &World) -> anyhow::Result<()> {
    let before = latest_address(world)?;
    let tried = || async {
        let now = latest_address(world).ok()?;
        // Addresses are given in turn, and begin again at the end of the range.
        ((now + ADDRESSES - before) % ADDRESSES > WAITING).then_some(())
    };
    eventually("pods that were refused and try again", world.patience, tried).await?;
    Ok(())
}

/// Addresses that the primary plugin can give to pods of a node.
const ADDRESSES: usize = 253;

/// The last part of the address that the primary plugin has given last.
fn latest_address(world: &World) -> anyhow::Result<usize> {
    let path = world.lab.node(1).folder().join("ipam/lab/last_reserved_ip.0");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "10.20.1.1".to_owned());
    let last = text.trim().rsplit('.').next().context("an address")?;
    last.parse().with_context(|| format!("the address {text:?}"))
}
