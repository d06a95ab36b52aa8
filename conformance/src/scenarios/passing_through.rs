//! What the plugin lets pass: containers that are no pods, and the mesh's own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use lab::cni_runtime::Runtime;
use lab::{Container, Node, Part, Pod, Server, TryAgain};

use super::cni::own_entry;
use super::faults::part;
use super::hanging::while_stopped;
use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "no-pod-passes-through",
            "a container that is no pod passes through, its result byte for byte, agent or not",
            no_pod
        ),
        scenario!(
            "own-pods-start-on-an-empty-node",
            "the mesh's own pods start where none of it is there, not even its folder",
            own_pods
        ),
    ]
}

async fn no_pod(world: &World) -> anyhow::Result<()> {
    let answering = world.lab.container("answered").await?;
    passes(world, &answering).await?;
    let agent = part(world.lab.node(1).agent())?;
    let hanging = world.lab.container("unanswered").await?;
    while_stopped(world, agent, passes(world, &hanging)).await?;
    agent.ready().await?;
    // It writes a line about whatever it is asked.
    let heard = agent.log_text();
    let ids = [&answering, &hanging].map(|container| &container.attachment().container_id);
    expect("an agent that was asked nothing", ids.iter().any(|id| heard.contains(*id)), |it| !it)
}

/// ADD, CHECK and DEL without a word about Kubernetes.
async fn passes(world: &World, container: &Container) -> anyhow::Result<()> {
    let (full, attachment) = (world.lab.node(1).cni().load()?, container.attachment());
    let cni = recording(world)?;
    let result = cni.add(&full, attachment).await?;
    expect("the primary plugin's address", result["ips"].to_string(), |ips| ips.contains("10."))?;
    let (asked, answered) = recorded(world)?;
    let (_, previous) = asked.split_once("\"prevResult\":").context("no result was handed on")?;
    expect("the same bytes in and out", format!("in: {asked}\nout: {answered}"), |_| {
        !answered.trim().is_empty() && previous.starts_with(answered.trim())
    })?;
    cni.check(&full, attachment).await?;
    let residue = observe::residue_in(container.place()).await?;
    expect("nothing of a capture", residue, String::is_empty)?;
    for _ in 0..2 {
        cni.del(&full, attachment).await?;
        let (_, answered) = recorded(world)?;
        expect("DEL says nothing", answered, |text| text.trim().is_empty())?;
    }
    // The plugin alone: it needs no more than the variables that the specification asks for.
    cni.del(&own_entry(world)?, &attachment.without_netns()).await?;
    Ok(())
}

/// A runtime that calls the plugin through a script, which writes down what it is told and says.
fn recording(world: &World) -> anyhow::Result<Runtime> {
    let node = world.lab.node(1);
    let folder = node.folder().join("recording");
    std::fs::create_dir_all(&folder)?;
    let plugin = node.cni().find("sluice-cni").context("the plugin's binary")?;
    let (plugin, at) = (plugin.display(), folder.display());
    let script = format!(
        "#!/bin/sh\ncat > {at}/asked\n{plugin} < {at}/asked > {at}/answered\nstatus=$?\n\
         cat {at}/answered\nexit $status\n"
    );
    let path = folder.join("sluice-cni");
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    let primary = node.cni().find("bridge").context("the primary plugin's binary")?;
    let primary = primary.parent().context("a folder of primary plugins")?;
    Ok(node.cni().with_plugins(vec![folder, primary.to_owned()]))
}

/// What the last call was told, and what it said.
fn recorded(world: &World) -> anyhow::Result<(String, String)> {
    let folder = world.lab.node(1).folder().join("recording");
    let read = |name| std::fs::read_to_string(folder.join(name)).context("nobody was called");
    Ok((read("asked")?, read("answered")?))
}

async fn own_pods(world: &World) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    let parts = [part(node.agent())?, part(node.ztunnel())?];
    let kept = empty(node, parts).await?;
    let started = on_an_empty_node(world).await;
    let _ = std::fs::remove_dir_all(node.agent_folder());
    std::fs::rename(&kept, node.agent_folder())?;
    for part in parts {
        part.start().await?;
    }
    for part in parts {
        part.ready().await?;
    }
    let (own, server, _app) = started?;
    // With the mesh around them they stay what they are.
    own.exchange(server.addr(APP_PORT), "after").await?;
    for pod in [&own, &server] {
        expect("nothing in them", observe::residue(pod).await?, String::is_empty)?;
    }
    Ok(())
}

/// Has the node be as if agent and ztunnel had never run there. Gives the folder with all that
/// they have written down.
pub(super) async fn empty(node: &Node, parts: [&Part; 2]) -> anyhow::Result<PathBuf> {
    for part in parts {
        part.stop().await?;
    }
    let kept = node.folder().join("agent.kept");
    std::fs::rename(node.agent_folder(), &kept)?;
    // Whether an agent leaves it when it ends is its own affair.
    let _ = std::fs::remove_file(node.zds_socket());
    Ok(kept)
}

/// Who speaks, who answers, and its application.
type Own = (Arc<Pod>, Arc<Pod>, Server);

async fn on_an_empty_node(world: &World) -> anyhow::Result<Own> {
    let own = |name| in_namespace("sluice-system", name, 1).label(MODE_LABEL, "ambient");
    let own = |name| own(name).try_again(TryAgain::Never);
    let ztunnel = world.pod(own("sluice-ztunnel")).await?;
    let control = world.pod(own("sluice-control")).await?;
    let app = control.serve(APP_PORT).await?;
    ztunnel.exchange(control.addr(APP_PORT), "while it is empty").await?;
    let other = in_namespace("empty", "other", 1).try_again(TryAgain::Never);
    let refused = world.lab.create_pod(other).await;
    let error = refused.err().context("others started on an empty node")?;
    expect("CNI code 11", &error, |error| error.cni_code() == Some(11))?;
    Ok((ztunnel, control, app))
}
