//! The way in: what goes wrong with the runtime's folders while pods start.

use std::time::Duration;

use anyhow::Context;
use lab::cluster::access::paths;
use serde_json::Value;

use super::starting::{asking_first, becomes_captured, captured_server, watched};
use crate::cluster::exchange::{expect_unread, fresh_marker};
use crate::cluster::ground::{Ground, PATIENCE, START};
use crate::cluster::hands::Hand;
use crate::cluster::patience::eventually;
use crate::cluster::pods::MODE_LABEL;
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Lists;
use crate::scenario::{Skip, expect};

/// Where runtimes look unless they are told otherwise.
const LISTS: &str = "/etc/cni/net.d";
const PROGRAMS: &str = "/opt/cni/bin";
/// Pods that start while the primary's list is written again and again, three at a time.
const PODS: usize = 12;
/// How often it must have been written for that to show anything: more often than pods start, however
/// fast they do.
const TIMES: usize = 3 * PODS;
/// How long a pod gets to start while a list cannot be read; it may as well wait.
const MEANWHILE: Duration = Duration::from_secs(20);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "plugin-deleted-by-hand",
            &[49],
            "program and list are deleted and edited: they come back, pods meanwhile are captured",
            deleted
        ),
        scenario!(
            "primary-rewrites-its-list",
            &[46],
            "the primary's list is written again and again while pods start: none escapes",
            rewritten
        ),
        scenario!(
            "list-renamed-or-unreadable",
            &[47],
            "the primary's list has another name, or cannot be read: no pod escapes",
            renamed
        ),
    ]
}

/// The runtime's folders on a node, with what the mesh and the primary have there.
pub(super) struct Door {
    pub hand: Hand,
    /// The folder of lists.
    pub lists: String,
    /// The list that counts, which calls the mesh's plugin.
    pub own: String,
    /// The primary's own.
    pub primary: String,
    /// The primary's text.
    text: String,
    /// The plugin's program.
    pub program: String,
}

impl Door {
    /// # Errors
    /// [`Skip`] where the plugin stands in the primary's own list.
    pub(super) async fn of(ground: &Ground, number: usize) -> anyhow::Result<Self> {
        let agent = ground.parts.agent()?;
        let folder = async |name: &str, usual: &str| -> anyhow::Result<String> {
            let told = agent.setting(&ground.cluster, name).await?;
            Ok(told.filter(|told| !told.is_empty()).unwrap_or_else(|| usual.to_owned()))
        };
        let lists = folder("CNI_CONF_DIR", LISTS).await?;
        let programs = folder("CNI_BIN_DIR", PROGRAMS).await?;
        let hand = ground.hand(number).await?;
        let found: Lists = hand.ask(ground, &["lists", &lists]).await?;
        let (own, text) = found.files.first().context("the runtime has no list")?;
        let plugin = last_plugin(text).context("the runtime's first list calls nothing")?;
        let other = found.files.iter().find(|(_, text)| !text.contains(&plugin));
        let missing = || Skip(format!("`{plugin}` stands in the primary's own list, {own}"));
        let (primary, text) = other.ok_or_else(missing)?;
        Ok(Self {
            own: format!("{lists}/{own}"),
            primary: format!("{lists}/{primary}"),
            text: text.clone(),
            program: format!("{programs}/{plugin}"),
            lists,
            hand,
        })
    }
}

/// What a list calls last.
fn last_plugin(text: &str) -> Option<String> {
    let list: Value = serde_json::from_str(text).ok()?;
    Some(list["plugins"].as_array()?.last()?["type"].as_str()?.to_owned())
}

async fn deleted(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let namespace = ground.namespace("deleted", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let door = Door::of(ground, 1).await?;
    let harms = [
        ("without-program", &door.program, &["absent"][..]),
        ("without-list", &door.own, &["absent"]),
        ("other-list", &door.own, &["other", "--with", &door.text]),
    ];
    for (name, path, harm) in harms {
        let before = door.hand.read(ground, path).await?;
        let held = door.hand.hold(ground, path, harm).await?;
        // In the middle of it: it waits, or starts without the mesh and is found.
        let spec = ground.spec(&namespace, name, 1)?.label(MODE_LABEL, "ambient");
        ground.cluster.create_pod(&spec).await?;
        let back = async || {
            let now = door.hand.read(ground, path).await.ok()?;
            (now == before).then_some(())
        };
        eventually(&format!("{path} as it was"), PATIENCE, back).await?;
        held.release().await?;
        becomes_captured(ground, (&namespace, name), &server).await?;
    }
    Ok(())
}

async fn rewritten(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let namespace = ground.namespace("rewritten", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let door = Door::of(ground, 1).await?;
    let marker = fresh_marker();
    let names: Vec<_> = (0..PODS).map(|number| format!("client-{number}")).collect();
    let before = door.hand.read(ground, &door.own).await?;
    let held = door.hand.hold(ground, &door.primary, &["rewritten"]).await?;
    let starting = watched(ground, &server, &marker, async {
        for some in names.chunks(3) {
            for name in some {
                let spec = asking_first(ground, &namespace, (name, 1), &server, &marker)?;
                ground.cluster.create_pod(&spec).await?;
            }
            for name in some {
                ground.cluster.wait_ready(&namespace, name, START).await?;
            }
        }
        Ok(())
    });
    let seen = starting.await;
    let times = held.release().await?;
    expect_unread(seen?)?;
    expect(&format!("written more than {TIMES} times"), times, |times| {
        times.parse::<usize>().is_ok_and(|times| times > TIMES)
    })?;
    for name in &names {
        becomes_captured(ground, (&namespace, name), &server).await?;
    }
    let after = door.hand.read(ground, &door.own).await?;
    expect("the list that counts is as before", after.text, |text| *text == before.text)
}

async fn renamed(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let namespace = ground.namespace("renamed", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let door = Door::of(ground, 1).await?;
    let before = door.hand.read(ground, &door.own).await?;
    let harms = [
        ("later", &["renamed", "--with", "98-conformance.conflist"][..]),
        ("earlier", &["renamed", "--with", "05-conformance.conflist"]),
        ("unreadable", &["rubbish"]),
    ];
    for (name, harm) in harms {
        let marker = fresh_marker();
        let held = door.hand.hold(ground, &door.primary, harm).await?;
        let spec = asking_first(ground, &namespace, (name, 1), &server, &marker)?;
        let starting = watched(ground, &server, &marker, async {
            ground.cluster.create_pod(&spec).await?;
            // That it waits is as good.
            let _ = ground.cluster.wait_ready(&namespace, name, MEANWHILE).await;
            held.release().await?;
            ground.cluster.wait_ready(&namespace, name, START).await?;
            Ok(())
        });
        let seen = starting.await.with_context(|| format!("while the list is {name}"))?;
        expect_unread(seen)?;
        becomes_captured(ground, (&namespace, name), &server).await?;
        ground.cluster.delete(&paths::pod(&namespace, name)).await?;
    }
    let back = async || {
        let now = door.hand.read(ground, &door.own).await.ok()?;
        (now.text == before.text).then_some(())
    };
    eventually("the list that counts, as before", PATIENCE, back).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meshs_plugin_is_the_last_one() {
        let list = r#"{"plugins": [{"type": "flannel"}, {"type": "sluice-cni"}]}"#;
        assert_eq!(last_plugin(list).as_deref(), Some("sluice-cni"));
        assert_eq!(last_plugin("{"), None);
        assert_eq!(last_plugin(r#"{"type": "bridge"}"#), None);
    }
}
