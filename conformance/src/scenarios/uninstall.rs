//! A node that Sluice leaves, and comes back to.

use anyhow::Context;
use lab::eventually;

use super::faults::part;
use crate::observe::{self, exchange};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, REDIRECTION, World};

const NODE: &str = "/api/v1/nodes/node1";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "uninstall",
        "a node without an agent is freed of the mesh, with ztunnel still there; connections drain",
        uninstall
    )]
}

async fn uninstall(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("uninstall").await?;
    let node = world.lab.node(1);
    let agent = part(node.agent())?;
    let conf = node.folder().join("uninstall.d");
    std::fs::create_dir_all(&conf)?;
    std::fs::copy(node.conflist(), conf.join("10-lab.conflist"))?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before").await?;

    agent.stop().await?;
    // An agent of another scenario has written down that it installed for this node: its list and
    // the plugin, which all nodes of the lab share, would be removed too.
    let _ = std::fs::remove_file(node.agent_folder().join("installed.json"));
    let records = node.agent_folder().join("pods.json");
    let told = std::fs::read(&records)?;
    world.may_speak_openly(&pods.client).await?;
    let command = command(world)?;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    // While it drains, the connection through the tunnel lives; then its application ends it.
    let drained = async {
        eventually("the rules of a drain", world.patience, || async {
            let rules = pods.client.run(&["nft", "list", "ruleset"]).await.ok()?.stdout;
            (rules.contains("chain mark_out") && !rules.contains("redirect to :15001"))
                .then_some(())
        })
        .await?;
        for _ in 0..10 {
            talk.send_line("while draining").await?;
        }
        drop(talk);
        anyhow::Ok(())
    };
    let (done, drained) = tokio::join!(node.run(&words), drained);
    drained.context("talk while draining")?;
    let done = done?;
    expect("the command's output", format!("{}{}", done.stdout, done.stderr), |_| {
        done.code == Some(0) && done.stdout.contains("tell peers")
    })?;

    let tables = pods.client.run(&["nft", "list", "tables"]).await?;
    expect("tables in the pod", tables.stdout.trim(), |tables| tables.is_empty())?;
    world.until_redirection(&pods.client, None).await?;
    let seen = exchange(world, &pods.client, &pods.server).await?;
    expect("traffic in clear text", &seen, |seen| seen.is_plain())?;
    let conflist = std::fs::read_to_string(conf.join("10-lab.conflist"))?;
    expect("the conflist", conflist, |text| !text.contains("sluice-cni"))?;
    expect("the agent's directory", node.agent_folder().exists(), |there| !there)?;
    let conditions = world.lab.kube().get(NODE).await?["status"]["conditions"].to_string();
    expect("conditions of the node", conditions, |text| !text.contains("SluiceReady"))?;

    taken_back(world, &pods, &records, &told).await
}

/// Another agent takes the pods into the mesh again.
async fn taken_back(
    world: &World,
    pods: &Couple,
    records: &std::path::Path,
    told: &[u8],
) -> anyhow::Result<()> {
    let node = world.lab.node(1);
    // Where the pods are a container runtime tells the next agent; that of the lab is not asked.
    std::fs::create_dir_all(node.agent_folder())?;
    std::fs::write(records, told)?;
    let agent = part(node.agent())?;
    agent.start().await?;
    agent.ready().await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    eventually("the annotation", world.patience, || async {
        let pod = format!("/api/v1/namespaces/uninstall/pods/{}", pods.client.name());
        let pod = world.lab.kube().get(&pod).await.ok()?;
        (pod["metadata"]["annotations"][REDIRECTION] == "enabled").then_some(())
    })
    .await?;
    Ok(())
}

/// With folders of its own in place of the machine's, and only the pods that the agent knows.
fn command(world: &World) -> anyhow::Result<Vec<String>> {
    let node = world.lab.node(1);
    let subject = world.lab.options().subject.as_ref().context("a lab with a mesh")?;
    let empty = node.folder().join("uninstall.empty");
    std::fs::create_dir_all(&empty)?;
    let show = |path: &std::path::Path| path.display().to_string();
    let settings = [
        ("NODE_NAME", node.name().to_owned()),
        ("KUBECONFIG", show(&world.lab.folder().join("node-kubeconfig"))),
        ("RUN_DIR", show(node.agent_folder())),
        ("INPOD_UDS", show(node.zds_socket())),
        ("CNI_CONF_DIR", show(&node.folder().join("uninstall.d"))),
        ("CNI_BIN_DIR", show(&empty)),
        ("CNI_CACHE_DIR", show(&empty)),
        ("HOST_PROC", show(&empty)),
        ("WITHDRAW_WAIT", "1s".to_owned()),
        ("DRAIN_DEADLINE", format!("{}s", world.patience.as_secs())),
    ];
    let settings = settings.into_iter().map(|(name, value)| format!("{name}={value}"));
    let program = [show(&subject.node_agent), "uninstall".to_owned(), "--drain".to_owned()];
    Ok(["env".to_owned()].into_iter().chain(settings).chain(program).collect())
}
