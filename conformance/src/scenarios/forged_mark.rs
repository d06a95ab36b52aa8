//! An application that passes itself off as the proxy, by the mark of the proxy's packets.

use std::sync::Arc;

use anyhow::Context;
use lab::{Pod, eventually};
use serde_json::json;

use super::policy::peers::Peer;
use crate::observe;
use crate::pod_app::Said;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, World, in_namespace};

/// The mark of the proxy's sockets.
const MARK: &str = "1337";
/// What container runtimes give a container that asks for nothing.
const USUAL: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
                     +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";
/// The same without `NET_RAW`.
const LESS: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
                    +net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "forged-mark",
        "who sets the proxy's mark needs NET_RAW, and has no identity where one is asked for",
        forged_mark
    )]
}

async fn forged_mark(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("marked").await?;
    world.may_speak_openly(&pods.client).await?;
    let neighbour = world.pod(in_namespace("marked", "neighbour", 1)).await?;
    let near = neighbour.serve(APP_PORT).await?;
    world.enrol(&neighbour).await?;

    let said = say(world, &pods.client, &pods.server, LESS).await?;
    expect("no mark without NET_RAW", &said, |said| **said == Said::Forbidden)?;
    let said = say(world, &pods.client, &pods.server, USUAL).await?;
    if said == Said::Forbidden {
        // Before Linux 5.17 the usual capabilities are not enough.
        return Ok(());
    }
    // It goes past its own proxy, as docs/pod-options.md says, and proves that it was not refused
    // below for other reasons.
    expect("past its own proxy", &said, |said| matches!(said, Said::Answered(_)))?;

    let spec = json!({"mtls": {"mode": "STRICT"}});
    let strict = Peer::create(world, "marked", "all", &spec).await?;
    for (server, app) in [(&pods.server, &pods.app), (&neighbour, &near)] {
        turned_away(world, &pods.client, server).await?;
        let before = app.connections();
        let said = say(world, &pods.client, server, USUAL).await?;
        expect("turned away by the receiver", &said, |said| matches!(said, Said::Unanswered(_)))?;
        let more = app.connections() - before;
        expect("nothing of it at the application", more, |count| *count == 0)?;
    }
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    strict.delete(world).await
}

/// The policy reaches the receiver in its time.
async fn turned_away(world: &World, client: &Arc<Pod>, server: &Arc<Pod>) -> anyhow::Result<()> {
    let counts = || async {
        let said = say(world, client, server, USUAL).await.ok()?;
        matches!(said, Said::Unanswered(_)).then_some(())
    };
    eventually("a marked connection turned away", world.patience, counts).await?;
    Ok(())
}

/// Has a process of the pod say a line with the proxy's mark.
async fn say(world: &World, from: &Pod, to: &Pod, capabilities: &str) -> anyhow::Result<Said> {
    let program = std::env::current_exe().context("find this program")?.display().to_string();
    let (to, deadline) = (to.addr(APP_PORT).to_string(), world.patience.as_secs().to_string());
    let words = ["setpriv", "--inh-caps=-all", "--bounding-set", capabilities, &program];
    let words = [&words[..], &["app", "marked", MARK, &to, "forged", "--deadline", &deadline]];
    let ran = from.run(&words.concat()).await?;
    serde_json::from_str(&ran.stdout).with_context(|| format!("it said {:?}", ran.stderr))
}
