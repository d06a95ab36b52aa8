//! Namespaces that belong to other users, and pods with more than one network.

use std::net::IpAddr;

use anyhow::Context;
use lab::cni_runtime::{Attachment, Conflist};
use lab::{Pod, Users, eventually};
use serde_json::{Value, json};

use super::faults::part;
use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "user-namespace",
            "a pod with users of its own is captured, repaired and released as any other",
            user_namespace
        ),
        scenario!(
            "second-interface",
            "a captured pod's second interface is captured too, and its end is not the pod's",
            second_interface
        ),
    ]
}

async fn user_namespace(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("users").await?;
    let spec = in_namespace("users", "client", 1).users(Users::Own);
    let client = world.pod(spec.label(MODE_LABEL, "ambient")).await?;
    let owners = [owner(&client).await?, owner(&server).await?];
    expect("a namespace of other users", owners.join(" "), |_| owners[0] != owners[1])?;
    let rules = observe::residue(&client).await?;
    expect("rules as the pod starts", rules, |text| text.contains("redirect to :15001"))?;
    world.until_redirection(&client, Some("enabled")).await?;
    observe::tunnelled(world, &client, &server).await?;
    client.check().await?;
    client.run(&["nft", "flush", "ruleset"]).await?;
    let repaired = eventually("the rules are back", world.patience, || async {
        observe::residue(&client).await.ok()?.contains("redirect to :15001").then_some(())
    });
    repaired.await?;
    observe::tunnelled(world, &client, &server).await?;
    world.release(&client).await?;
    observe::until_empty(world, &client).await?;
    world.enrol(&client).await?;
    observe::tunnelled(world, &client, &server).await
}

/// The user namespace that owns a pod's network namespace.
async fn owner(pod: &Pod) -> anyhow::Result<String> {
    let ran = pod.run(&["sh", "-c", "lsns --noheadings -t net -o ONS -p $$"]).await?;
    expect("an owner", ran.stdout.trim().to_owned(), |text| !text.is_empty())?;
    Ok(ran.stdout.trim().to_owned())
}

async fn second_interface(world: &World) -> anyhow::Result<()> {
    let (server, _app) = world.captured_server("second").await?;
    let client = in_namespace("second", "client", 1).label(MODE_LABEL, "ambient");
    let client = world.pod(client).await?;
    observe::tunnelled(world, &client, &server).await?;
    let before = rules(&client).await?;
    let (cni, list) = (world.lab.node(1).cni(), second_network(world)?);
    let net1 = Attachment { ifname: "net1".to_owned(), ..client.attachment().clone() };
    let own = address(&cni.add(&list, &net1).await.context("ADD of net1")?)?;
    let elsewhere = world.lab.container("second-network").await?;
    let theirs = address(&cni.add(&list, elsewhere.attachment()).await?)?;

    let app = elsewhere.place().serve(APP_PORT).await?;
    let reply = client.exchange((theirs, APP_PORT).into(), "over the second network").await?;
    expect("the pod's address there", reply.peer.ip().to_canonical(), |peer| *peer == own)?;
    let ztunnel = part(world.lab.node(1).ztunnel())?;
    let to = format!("{theirs}:{APP_PORT}");
    let said = eventually("ztunnel's line about it", world.patience, || async {
        ztunnel.log_text().contains(&to).then_some(())
    });
    said.await?;
    let _own_app = client.serve(APP_PORT).await?;
    let back = elsewhere.place().connect((own, APP_PORT).into()).await?.send_line("back").await?;
    expect("the other's address", back.peer.ip().to_canonical(), |peer| *peer == theirs)?;
    client.check().await.context("CHECK of eth0")?;
    // The bridge's own CHECK minds that a bridge's address changes with its members.
    let mut ours = list.clone();
    ours.plugins.retain(|plugin| plugin.kind == "sluice-cni");
    cni.check(&ours, &net1).await.context("CHECK of net1")?;

    for _ in 0..2 {
        cni.del(&list, &net1).await.context("DEL of net1")?;
    }
    expect("the rules as before", rules(&client).await?, |after| *after == before)?;
    client.check().await.context("CHECK of eth0, without net1")?;
    observe::tunnelled(world, &client, &server).await?;
    drop(app);
    Ok(cni.del(&list, elsewhere.attachment()).await?)
}

async fn rules(pod: &Pod) -> anyhow::Result<String> {
    let rules = pod.run(&["nft", "-s", "list", "ruleset"]).await?.stdout;
    expect("rules of a capture", rules.clone(), |rules| rules.contains("redirect to :15001"))?;
    Ok(rules)
}

/// A network of node 1 alone, beside the cluster's, with our plugin in its list too.
fn second_network(world: &World) -> anyhow::Result<Conflist> {
    let node = world.lab.node(1);
    let socket = node.agent_folder().join("plugin.sock");
    let list = json!({"cniVersion": "1.0.0", "name": "second", "plugins": [
        {"type": "bridge", "bridge": "second0", "ipam": {
            "type": "host-local",
            "dataDir": node.folder().join("second-ipam"),
            "ranges": [[{"subnet": "10.77.0.0/24"}]],
        }},
        {"type": "sluice-cni", "agentSocket": socket},
    ]});
    Conflist::parse(&list.to_string()).map_err(|error| anyhow::anyhow!(error))
}

fn address(result: &Value) -> anyhow::Result<IpAddr> {
    let text = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
    text.and_then(|text| text.parse().ok()).with_context(|| format!("no address in {result}"))
}
