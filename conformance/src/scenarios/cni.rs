//! The door: what the container runtime sees of us.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use lab::cni_runtime::{CniError, Conflist, Runtime};
use lab::{Pod, TryAgain};
use serde_json::Value;

use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::faults::part;
use crate::world::{MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "agent-absent",
            "without the agent pods do not start (code 11), except in excluded namespaces",
            agent_absent
        ),
        scenario!(
            "agent-absent-known-pods",
            "where that is wanted, pods known to be outside the mesh start without the agent",
            known_pods
        ),
        scenario!(
            "ztunnel-absent",
            "without ztunnel a labelled pod does not start, and heals by itself",
            ztunnel_absent
        ),
        scenario!(
            "check",
            "CHECK succeeds on a captured pod and fails while nobody serves it",
            check
        ),
        scenario!("status", "STATUS is a success with an agent, and 50 or 51 without", status),
        scenario!(
            "gc",
            "GC ends what the runtime does not know any more, and leaves the others captured",
            gc
        ),
        scenario!(
            "plugin-killed-at-each-step-of-add",
            "a plugin killed at any step of its talk with the agent leaves a pod that ADD captures",
            plugin_killed
        ),
        scenario!(
            "result-untouched",
            "the primary plugin's result reaches the runtime unchanged",
            result_untouched
        ),
    ]
}

async fn agent_absent(world: &World) -> anyhow::Result<()> {
    let agent = part(world.lab.node(1).agent())?;
    agent.stop().await?;
    let refused =
        world.lab.create_pod(in_namespace("door", "waits", 1).try_again(TryAgain::Never)).await;
    let code = match &refused {
        Err(error) => error.cni_code(),
        Ok(_) => None,
    };
    let excluded = world.pod(in_namespace("kube-system", "passes", 1)).await;
    agent.start().await?;
    agent.ready().await?;
    expect("CNI code 11", format!("{:?}", refused.as_ref().err()), |_| code == Some(11))?;
    excluded?;
    world.pod(in_namespace("door", "starts", 1)).await?;
    Ok(())
}

async fn known_pods(world: &World) -> anyhow::Result<()> {
    let plain = world.pod(in_namespace("known", "plain", 1)).await?;
    let labelled = in_namespace("known", "labelled", 1).label(MODE_LABEL, "ambient");
    let labelled = world.pod(labelled).await?;
    let list = world.lab.node(1).agent_folder().join("known-outside.json");
    let is_listed =
        |pod: &Pod| std::fs::read_to_string(&list).is_ok_and(|text| text.contains(pod.uid()));
    let listed = lab::eventually("the pod in the agent's list", world.patience, || async {
        is_listed(&plain).then_some(())
    });
    listed.await?;
    expect("the labelled pod in the list", is_listed(&labelled), |listed| !listed)?;
    let agent = part(world.lab.node(1).agent())?;
    agent.stop().await?;
    let (outside, inside) = (add_again(world, &plain).await?, add_again(world, &labelled).await?);
    agent.start().await?;
    agent.ready().await?;
    expect("a start without the agent", format!("{outside:?}"), |_| outside.is_ok())?;
    let code = inside.as_ref().err().and_then(CniError::code);
    expect("CNI code 11", format!("{inside:?}"), |_| code == Some(11))?;

    // Who is captured is not in the list any more, however the agent ends.
    world.enrol(&plain).await?;
    agent.kill().await?;
    let refused = add_again(world, &plain).await?;
    agent.start().await?;
    agent.ready().await?;
    let code = refused.as_ref().err().and_then(CniError::code);
    expect("CNI code 11", format!("{refused:?}"), |_| code == Some(11))
}

/// ADD by our plugin alone, after what the primary plugins did for the pod.
async fn add_again(world: &World, pod: &Pod) -> anyhow::Result<Result<Value, CniError>> {
    let mut list = own_entry(world)?;
    let entry = &mut list.plugins[0].config;
    entry.insert("whenAgentAbsent".into(), "allow-known".into());
    entry.insert("prevResult".into(), pod.result().clone());
    Ok(world.lab.node(1).cni().add(&list, pod.attachment()).await)
}

async fn ztunnel_absent(world: &World) -> anyhow::Result<()> {
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    ztunnel.stop().await?;
    let spec = in_namespace("door", "labelled", 1).label(MODE_LABEL, "ambient");
    let refused = world.lab.create_pod(spec.clone().try_again(TryAgain::Never)).await;
    ztunnel.start().await?;
    ztunnel.ready().await?;
    let code = match &refused {
        Err(error) => error.cni_code(),
        Ok(_) => None,
    };
    expect("CNI code 11", format!("{:?}", refused.as_ref().err()), |_| code == Some(11))?;
    let pod = world.pod(in_namespace("door", "labelled-2", 1).label(MODE_LABEL, "ambient")).await?;
    world.until_redirection(&pod, Some("enabled")).await
}

async fn check(world: &World) -> anyhow::Result<()> {
    let pod = world.pod(in_namespace("door", "checked", 1).label(MODE_LABEL, "ambient")).await?;
    world.until_redirection(&pod, Some("enabled")).await?;
    pod.check().await?;
    // Rules are repaired sooner than CHECK can be called; a ztunnel that is dead stays so.
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    ztunnel.kill().await?;
    let verdict = pod.check().await;
    ztunnel.start().await?;
    expect("an error, as nobody serves it", format!("{verdict:?}"), |_| verdict.is_err())?;
    ztunnel.ready().await?;
    let served = lab::eventually("CHECK succeeds again", world.patience, || async {
        pod.check().await.ok()
    });
    Ok(served.await?)
}

async fn result_untouched(world: &World) -> anyhow::Result<()> {
    let captured = in_namespace("door", "captured", 1).label(MODE_LABEL, "ambient");
    let pod = world.pod(captured).await?;
    let addresses = pod.result()["ips"].as_array().map(Vec::len);
    expect("the primary plugin's addresses", addresses.unwrap_or(0), |count| {
        *count == pod.ips().len()
    })?;
    let rules = observe::residue(&pod).await?;
    expect("captured", rules, |text| text.contains("15001"))
}

/// Our own entry of the node's list alone.
pub(super) fn own_entry(world: &World) -> anyhow::Result<Conflist> {
    let mut list = world.lab.node(1).cni().load()?;
    list.plugins.retain(|plugin| plugin.kind == "sluice-cni");
    expect("our entry in the list", list.plugins.len(), |count| *count == 1)?;
    Ok(list)
}

/// The same in the first version that has STATUS and GC, which the primary plugins of a
/// distribution may not know.
fn newest_entry(world: &World) -> anyhow::Result<Conflist> {
    Ok(Conflist { version: "1.1.0".to_owned(), ..own_entry(world)? })
}

async fn status(world: &World) -> anyhow::Result<()> {
    let (list, cni) = (newest_entry(world)?, world.lab.node(1).cni());
    let ready = lab::eventually("STATUS of a node with an agent", world.patience, || async {
        cni.status(&list).await.ok()
    });
    ready.await?;
    let agent = part(world.lab.node(1).agent())?;
    agent.stop().await?;
    let verdict = cni.status(&list).await;
    agent.start().await?;
    let code = verdict.as_ref().err().and_then(CniError::code);
    expect("code 50 or 51", format!("{verdict:?}"), |_| matches!(code, Some(50 | 51)))?;
    // Whoever asks while the agent starts is made to wait for it, not told off.
    agent.ready().await?;
    Ok(cni.status(&list).await?)
}

async fn gc(world: &World) -> anyhow::Result<()> {
    let labelled = |name| in_namespace("collected", name, 1).label(MODE_LABEL, "ambient");
    let kept = world.pod(labelled("kept")).await?;
    let stale = world.pod(labelled("stale")).await?;
    let (server, _app) = world.captured_server("collected").await?;
    observe::tunnelled(world, &kept, &server).await?;
    observe::tunnelled(world, &stale, &server).await?;

    let (list, cni) = (newest_entry(world)?, world.lab.node(1).cni());
    // A runtime that lost its memory of one: what it does not know it cannot DEL.
    std::fs::remove_file(cni.cached(&list, stale.attachment())).context("forget an attachment")?;
    cni.gc(&list, &[kept.attachment()]).await?;
    observe::until(world, "the stale pod refused", &stale, &server, |seen| seen.is_refused())
        .await?;
    observe::tunnelled(world, &kept, &server).await?;
    kept.check().await?;
    // Once more, and there is nothing left to end.
    cni.gc(&list, &[kept.attachment()]).await?;
    let seen = observe::exchange(world, &kept, &server).await?;
    expect("the tunnel of the valid pod", &seen, |seen| seen.is_tunnelled())
}

/// System calls of an ADD from the first that the agent can notice, and which of that name.
const STEPS: [(&str, u8); 8] = [
    ("socket", 1),
    ("connect", 1),
    ("getsockopt", 1),
    ("sendmsg", 1),
    ("recvfrom", 1),
    ("recvfrom", 2),
    ("write", 1),
    ("exit_group", 1),
];

async fn plugin_killed(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("killed-plugin").await?;
    let client = in_namespace("killed-plugin", "client", 1).label(MODE_LABEL, "ambient");
    let client = world.pod(client).await?;
    observe::tunnelled(world, &client, &server).await?;
    let (mut list, cni) = (own_entry(world)?, world.lab.node(1).cni());
    // What the primary plugins did stays: ours alone is called again and again.
    list.plugins[0].config.insert("prevResult".into(), client.result().clone());
    for (call, occurrence) in STEPS {
        cni.del(&list, client.attachment()).await?;
        // As in a namespace that is new.
        let gone = client.run(&["nft", "delete", "table", "inet", "sluice"]).await?;
        expect("no rules", gone.stderr, String::is_empty)?;
        let died = killing(world, call, occurrence)?.add(&list, client.attachment()).await;
        let words = died.as_ref().err().map(ToString::to_string).unwrap_or_default();
        expect("a plugin that was killed", words, |words| words.contains("exit code None"))?;
        cni.del(&list, client.attachment()).await?;
        cni.add(&list, client.attachment()).await?;
        let rules = observe::residue(&client).await?;
        expect("rules", rules, |text| text.contains("redirect to :15001"))?;
        observe::tunnelled(world, &client, &server).await?;
    }
    Ok(())
}

/// A runtime whose plugin is killed as it makes this system call.
fn killing(world: &World, call: &str, occurrence: u8) -> anyhow::Result<Runtime> {
    let node = world.lab.node(1);
    let folder = node.folder().join("killing");
    std::fs::create_dir_all(&folder)?;
    let plugin = node.cni().find("sluice-cni").context("the plugin's binary")?;
    let inject = format!("inject={call}:signal=SIGKILL:when={occurrence}");
    let script = format!("#!/bin/sh\nexec strace -o /dev/null -e {inject} {}\n", plugin.display());
    let path = folder.join("sluice-cni");
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(node.cni().with_plugins(vec![folder]))
}
