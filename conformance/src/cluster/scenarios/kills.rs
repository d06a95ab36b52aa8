//! The mesh's processes are killed while there is something to do for them.

use lab::cluster::access::paths;
use serde_json::Value;

use super::parts::{is_ready, replace};
use super::starting::{asking_first, becomes_captured, captured_server, watched};
use crate::cluster::exchange::{expect_unread, fresh_marker};
use crate::cluster::ground::{Ground, START};
use crate::cluster::hands::Hand;
use crate::cluster::parts::Part;
use crate::cluster::pods::{Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::{Counts, Killed};
use crate::scenario::expect_within;

/// Kills, and so many restarts: the kubelet waits longer before each.
const KILLS: usize = 3;
/// Pods that start while there is no proxy.
const PODS: usize = 6;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "own-pods-start",
            &[51],
            "agent and ztunnel of a node end together, both come back, and pods start again",
            own_pods
        ),
        scenario!(
            "agent-killed-under-load",
            &[38],
            "an agent is killed again and again while pods come and go: in the end all is as asked",
            agent_killed
        ),
        scenario!(
            "proxy-dies-before-ready",
            &[43],
            "a ztunnel dies before it is ready while pods are added: none is left without one",
            proxy_dies
        ),
    ]
}

async fn own_pods(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let (agent, ztunnel) = (ground.parts.agent()?, ground.parts.ztunnel()?);
    let pods = ground.captured_couple("own-pods", Distance::CrossNode).await?;
    let node = &pods.client.node;
    tokio::try_join!(replace(ground, agent, node), replace(ground, ztunnel, node))?;
    let late = ground.spec(&pods.namespace, "late", 1)?.label(MODE_LABEL, "ambient");
    let late = ground.pod(&late).await?;
    ground.until_redirection(&late, Some("enabled")).await?;
    for client in [&late, &pods.client] {
        ground.until_captured(client, &pods.server).await?;
    }
    Ok(())
}

async fn agent_killed(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let agent = ground.parts.agent()?;
    let program = agent.program(&ground.cluster).await?;
    let namespace = ground.namespace("agent-killed", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let comes = ground.pod(&ground.spec(&namespace, "comes", 1)?).await?;
    let goes = ground.spec(&namespace, "goes", 1)?.label(MODE_LABEL, "ambient");
    let goes = ground.pod(&goes).await?;
    ground.until_captured(&goes, &server).await?;
    let hand = ground.hand(1).await?;
    let before: Counts = hand.ask(ground, &["count"]).await?;
    for round in 0..KILLS {
        work_for_the_agent(ground, &namespace, round).await?;
        // The last word counts: labelled in rounds 0 and 2.
        let (come, go) =
            if round % 2 == 0 { (Some("ambient"), None) } else { (None, Some("ambient")) };
        ground.cluster.label(&comes.path(), MODE_LABEL, come).await?;
        ground.cluster.label(&goes.path(), MODE_LABEL, go).await?;
        kill_agent(ground, (&hand, agent), &program).await?;
    }
    as_asked(ground, &namespace, &server).await?;
    let pods = ["in", "out"].map(|kind| format!("{kind}-{}", KILLS - 1));
    for name in &pods {
        ground.cluster.delete(&paths::pod(&namespace, name)).await?;
        ground.cluster.wait_gone(&paths::pod(&namespace, name), START).await?;
    }
    let expected = format!("no more namespaces and interfaces than in {before}");
    let now = async || hand.ask::<Counts>(ground, &["count"]).await;
    let freed =
        |now: &Counts| now.namespaces <= before.namespaces && now.interfaces <= before.interfaces;
    expect_within(&expected, START, now, freed).await.map(drop)
}

/// One pod in the mesh and one outside begin; those of the round before end.
async fn work_for_the_agent(ground: &Ground, namespace: &str, round: usize) -> anyhow::Result<()> {
    for (kind, labelled) in [("in", Some("ambient")), ("out", None)] {
        let mut spec = ground.spec(namespace, &format!("{kind}-{round}"), 1)?;
        if let Some(mode) = labelled {
            spec = spec.label(MODE_LABEL, mode);
        }
        ground.cluster.create_pod(&spec).await?;
        if let Some(last) = round.checked_sub(1) {
            ground.cluster.delete(&paths::pod(namespace, &format!("{kind}-{last}"))).await?;
        }
    }
    Ok(())
}

/// Kills the agent's process, and waits until the kubelet has started another one that is ready.
async fn kill_agent(
    ground: &Ground,
    (hand, agent): (&Hand, &Part),
    program: &str,
) -> anyhow::Result<()> {
    let pods = agent.pods_on(&ground.cluster, &hand.node).await?;
    for pod in &pods {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let words = ["kill", "--pod", uid, "--program", program];
        let _: Killed = hand.ask(ground, &words).await?;
        let path =
            paths::pod(&agent.namespace, pod["metadata"]["name"].as_str().unwrap_or_default());
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let before = restarts(pod);
        let again = |now: &Value| restarts(now) > before && is_ready(now);
        ground.cluster.wait(&path, "started again and ready", START, again).await?;
    }
    Ok(())
}

/// Each pod is as the last label says, in its annotation and on the wire.
async fn as_asked(ground: &Ground, namespace: &str, server: &TestPod) -> anyhow::Result<()> {
    let last = KILLS - 1;
    for name in ["comes".to_owned(), format!("in-{last}")] {
        becomes_captured(ground, (namespace, &name), server).await?;
    }
    for name in ["goes".to_owned(), format!("out-{last}")] {
        let pod = ground.running(namespace, &name).await?;
        ground.until_redirection(&pod, None).await?;
        ground.until_direct(&pod, server).await?;
    }
    Ok(())
}

async fn proxy_dies(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let ztunnel = ground.parts.ztunnel()?;
    let program = ztunnel.program(&ground.cluster).await?;
    let namespace = ground.namespace("proxy-dies", &[]).await?;
    let server = captured_server(ground, &namespace, 2).await?;
    let hand = ground.hand(1).await?;
    let proxies = ztunnel.pods_on(&ground.cluster, &hand.node).await?;
    let uid = proxies.first().and_then(|pod| pod["metadata"]["uid"].as_str()).unwrap_or_default();
    let times = KILLS.to_string();
    let words = ["kill", "--pod", uid, "--program", &program, "--times", &times];
    let marker = fresh_marker();
    let seen = watched(ground, &server, &marker, async {
        let killing = hand.ask::<Killed>(ground, &words);
        let adding = async {
            for number in 0..PODS {
                let name = format!("client-{number}");
                let spec = asking_first(ground, &namespace, (&name, 1), &server, &marker)?;
                ground.cluster.create_pod(&spec).await?;
            }
            Ok(())
        };
        tokio::try_join!(killing, adding)?;
        for number in 0..PODS {
            let name = format!("client-{number}");
            ground.cluster.wait_ready(&namespace, &name, 2 * START).await?;
        }
        Ok(())
    });
    expect_unread(seen.await?)?;
    for number in 0..PODS {
        let name = format!("client-{number}");
        becomes_captured(ground, (&namespace, &name), &server).await?;
    }
    Ok(())
}
