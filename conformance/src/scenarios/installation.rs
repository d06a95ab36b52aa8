//! The node agent puts the plugin into the runtime's network configuration itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use lab::cni_runtime::CniError;
use lab::{Node, Part, Pod, PodSpec};
use serde_json::Value;

use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::faults::part;
use crate::world::{MODE_LABEL, World, in_namespace};

/// Pods that start while the primary plugin's owner rewrites its file.
const PODS: usize = 6;
/// Far more often than any owner does.
const REWRITE: Duration = Duration::from_millis(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "conflist-owned",
            "while the primary's file is rewritten all the time, labelled pods start captured, \
             and no address is given twice",
            conflist_owned
        ),
        scenario!(
            "conflist-after-reboot",
            "with all but the disk lost pods wait for the agent, and then start captured",
            conflist_after_reboot
        ),
        scenario!(
            "conflist-settings",
            "the plugin does as the agent that installed it was told: pods known to be outside \
             start without it, and the log is where it should be",
            conflist_settings
        ),
    ]
}

async fn conflist_owned(world: &World) -> anyhow::Result<()> {
    let primary = Primary::alone(world).await?;
    let before = world.pod(in_namespace("install", "before", 1)).await?;
    expect("as without a mesh", observe::residue(&before).await?, |text| !text.contains("15001"))?;
    let mut addresses: BTreeSet<_> = before.ips().iter().copied().collect();

    primary.install().await?;
    let network = primary.node().cni().load()?.name;
    expect("the primary's network", network, |name| *name == primary.network())?;
    tokio::select! {
        broken = rewrite(&primary.file, &primary.text) => broken.context("rewrite the file")?,
        captured = start_captured(world, &mut addresses) => captured?,
    }
    primary.restore().await
}

async fn start_captured(world: &World, addresses: &mut BTreeSet<IpAddr>) -> anyhow::Result<()> {
    for number in 0..PODS {
        let spec = in_namespace("install", &format!("labelled-{number}"), 1);
        let pod = world.pod(spec.label(MODE_LABEL, "ambient")).await?;
        let rules = observe::residue(&pod).await?;
        expect("captured as it starts", rules, |text| text.contains("15001"))?;
        for address in pod.ips() {
            expect("an address of its own", address, |address| addresses.insert(**address))?;
        }
    }
    Ok(())
}

async fn conflist_after_reboot(world: &World) -> anyhow::Result<()> {
    let primary = Primary::alone(world).await?;
    primary.install().await?;
    let agent = primary.agent()?;
    agent.kill().await?;
    // What a node has in memory only.
    for entry in std::fs::read_dir(primary.node().agent_folder())? {
        let path = entry?.path();
        if !path.is_dir() {
            std::fs::remove_file(path)?;
        }
    }
    let labelled =
        |name: &str| -> PodSpec { in_namespace("install", name, 1).label(MODE_LABEL, "ambient") };
    let refused = labelled("refused").try_again(lab::TryAgain::Never);
    let refused = world.lab.create_pod(refused).await.err();
    let code = refused.as_ref().and_then(lab::PodError::cni_code);
    expect("CNI code 11", format!("{refused:?}"), |_| code == Some(11))?;
    let start = async {
        agent.start().await?;
        agent.ready().await
    };
    let (pod, started) = tokio::join!(world.pod(labelled("waits")), start);
    started?;
    let rules = observe::residue(&*pod?).await?;
    expect("captured as it starts", rules, |text| text.contains("15001"))?;
    primary.restore().await
}

/// WHEN_AGENT_ABSENT and CNI_LOG_FILE, from the agent to what the runtime sees.
async fn conflist_settings(world: &World) -> anyhow::Result<()> {
    let primary = Primary::alone(world).await?;
    primary.install().await?;
    let node = primary.node();
    let plain = world.pod(in_namespace("install", "plain", 1)).await?;
    let labelled = in_namespace("install", "in-mesh", 1).label(MODE_LABEL, "ambient");
    let labelled = world.pod(labelled).await?;
    let known = node.agent_folder().join("known-outside.json");
    let listed = || async {
        std::fs::read_to_string(&known).is_ok_and(|text| text.contains(plain.uid())).then_some(())
    };
    lab::eventually("the pod in the agent's list", world.patience, listed).await?;
    primary.agent()?.kill().await?;
    let outside = add_again(node, &plain).await?;
    let inside = add_again(node, &labelled).await?;
    primary.agent()?.start().await?;
    primary.agent()?.ready().await?;
    expect("a start without the agent", format!("{outside:?}"), |_| outside.is_ok())?;
    let code = inside.as_ref().err().and_then(CniError::code);
    expect("CNI code 11", format!("{inside:?}"), |_| code == Some(11))?;
    let list = node.cni().load()?;
    let entry = list.plugins.last().context("our entry")?;
    let file = entry.config["logFile"].as_str().context("a file for the log")?;
    let log = std::fs::read_to_string(file).context("read the plugin's log")?;
    for said in ["passed through without the agent's word", "install/in-mesh"] {
        expect("the plugin's log", &log, |log| log.contains(said))?;
    }
    primary.restore().await
}

/// ADD by our plugin alone, with its entry as the agent has written it, after what the primary
/// plugins did for the pod.
async fn add_again(node: &Node, pod: &Pod) -> anyhow::Result<Result<Value, CniError>> {
    let mut list = node.cni().load()?;
    list.plugins.retain(|plugin| plugin.kind == "sluice-cni");
    let entry = &mut list.plugins.first_mut().context("our entry")?.config;
    entry.insert("prevResult".into(), pod.result().clone());
    Ok(node.cni().add(&list, pod.attachment()).await)
}

/// The primary plugin's configuration on node 1, without our plugin.
struct Primary<'a> {
    world: &'a World,
    file: PathBuf,
    /// As it was, with our plugin.
    whole: String,
    text: String,
}

impl<'a> Primary<'a> {
    /// Stops the agent and takes the plugin out, as on a node before the installation.
    async fn alone(world: &'a World) -> anyhow::Result<Self> {
        let file = world.lab.node(1).conflist().to_owned();
        part(world.lab.node(1).agent())?.stop().await?;
        let whole = std::fs::read_to_string(&file)?;
        let mut list: Value = serde_json::from_str(&whole)?;
        let plugins = list["plugins"].as_array_mut().context("a list of plugins")?;
        plugins.retain(|plugin| plugin["type"] != "sluice-cni");
        let text = format!("{list:#}\n");
        std::fs::write(&file, &text)?;
        Ok(Self { world, file, whole, text })
    }

    fn node(&self) -> &Node {
        self.world.lab.node(1)
    }

    fn agent(&self) -> anyhow::Result<&Part> {
        part(self.node().installing_agent())
    }

    fn network(&self) -> String {
        let list: Value = serde_json::from_str(&self.text).unwrap_or_default();
        list["name"].as_str().unwrap_or_default().to_owned()
    }

    fn ours(&self) -> PathBuf {
        self.file.with_file_name("00-sluice.conflist")
    }

    async fn install(&self) -> anyhow::Result<()> {
        self.agent()?.start().await?;
        self.agent()?.ready().await?;
        let installed = || async {
            let list = self.node().cni().load().ok()?;
            list.plugins.last().filter(|plugin| plugin.kind == "sluice-cni").map(drop)
        };
        lab::eventually("our list comes first", self.world.patience, installed).await?;
        let text = std::fs::read_to_string(&self.file)?;
        expect("the primary's file as it was", text, |text| *text == self.text)
    }

    /// As before the scenario. A list that stays when the agent ends has to be removed.
    async fn restore(self) -> anyhow::Result<()> {
        self.agent()?.stop().await?;
        let stays = self.ours().exists();
        std::fs::write(&self.file, &self.whole)?;
        std::fs::remove_file(self.ours()).ok();
        let agent = part(self.node().agent())?;
        agent.start().await?;
        agent.ready().await?;
        expect("our list stays when the agent ends", stays, |stays| *stays)
    }
}

impl Drop for Primary<'_> {
    /// Also when the scenario fails.
    fn drop(&mut self) {
        let _ = std::fs::write(&self.file, &self.whole);
        let _ = std::fs::remove_file(self.ours());
    }
}

/// In place and in two steps, each time with other content that means the same; until it
/// fails.
async fn rewrite(file: &Path, text: &str) -> std::io::Result<()> {
    for round in 0_u64.. {
        let text = text.replacen('{', &format!("{{ \"round\": {round},"), 1);
        std::fs::write(file, &text[..text.len() / 2])?;
        tokio::time::sleep(REWRITE).await;
        std::fs::write(file, &text)?;
        tokio::time::sleep(REWRITE).await;
    }
    Ok(())
}
