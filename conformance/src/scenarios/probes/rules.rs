//! The rules on the node that let probes through: repaired, kept, proven.

use lab::eventually;

use super::{HEALTH_PORT, Strict};
use crate::scenario::{Scenario, expect, scenario};
use crate::scenarios::faults::part;
use crate::scenarios::odd_pods::agent_page;
use crate::world::World;

/// What the agent keeps on its node, whatever the family of the pods.
pub(in crate::scenarios) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "probe-rules-come-back",
            "probe rules that somebody flushed on the node are back before long",
            come_back
        ),
        scenario!(
            "probes-without-the-agent",
            "probes pass while the agent is away, and end with their pod",
            without_agent
        ),
        scenario!(
            "probe-self-test",
            "each agent has seen a probe of its own arrive, and left nothing of the test",
            self_test
        ),
    ]
}

async fn come_back(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "flushed-host").await?;
    let node = world.lab.node(1);
    strict.probe(node.place()).await?;
    for damage in
        [&["flush", "ruleset"][..], &["flush", "chain", "inet", "sluice_host", "nat_post"]]
    {
        let argv: Vec<_> = ["nft"].into_iter().chain(damage.iter().copied()).collect();
        node.run(&argv).await?;
        eventually("probes pass again", world.patience, || async {
            strict.probe(node.place()).await.ok()
        })
        .await?;
        let rules = node.run(&["nft", "list", "table", "bridge", "sluice_host"]).await?;
        expect("the guard is back", rules.stdout, |rules| rules.contains("drop"))?;
    }
    let metrics = agent_page(node, "/metrics").await?;
    let repairs = metrics.lines().find(|line| line.starts_with("sluice_agent_host_probe_repairs"));
    let repairs = repairs.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    expect("repairs counted", format!("{repairs:?}"), |_| repairs.is_some_and(|count| count > 0))?;
    strict.end(world).await
}

async fn without_agent(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "agentless-probes").await?;
    let node = world.lab.node(1);
    let agent = part(node.agent())?;
    agent.kill().await?;
    strict.probe(node.place()).await?;
    agent.start().await?;
    agent.ready().await?;
    strict.probe(node.place()).await?;
    let element = format!("{} . {HEALTH_PORT}", strict.pod.ip());
    let sets = async || Ok::<_, anyhow::Error>(node.run(&["nft", "list", "ruleset"]).await?.stdout);
    expect("the pod in the node's set", sets().await?, |sets| sets.contains(&element))?;
    strict.end(world).await?;
    world.clear().await?;
    let gone = async || sets().await.ok().filter(|sets| !sets.contains(&element));
    eventually("the pod is gone from the node's set", world.patience, gone).await?;
    Ok(())
}

async fn self_test(world: &World) -> anyhow::Result<()> {
    for node in world.lab.nodes() {
        let metric = "sluice_agent_probe_self_test{family=\"IPv4\"} 1";
        let passed = || async {
            let page = agent_page(node, "/metrics").await.ok()?;
            page.lines().any(|line| line == metric).then_some(())
        };
        eventually("a probe of the agent's own has arrived", world.patience, passed).await?;
        let ready = agent_page(node, "/readyz").await?;
        expect("nothing to remark", ready, |page| page == "ok\n")?;
        let links = node.run(&["ip", "-o", "link"]).await?.stdout;
        expect("no link of the test", links, |links| !links.contains("sluice-probe"))?;
    }
    Ok(())
}
