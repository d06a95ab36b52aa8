//! Pods that work against their own capture, and callers that go for the proxy's ports.

use std::time::Duration;

use lab::cluster::access::ContainerSpec;

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::patience::eventually;
use crate::cluster::pods::{Distance, MODE_LABEL, PROGRAM};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect};

/// Ports of the proxy in pods.
const OWN_PORTS: [u16; 3] = [15001, 15006, 15008];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "proxy-ports-from-outside",
            &[7],
            "nobody gets an answer at the proxy's own ports of a captured pod",
            proxy_ports
        ),
        scenario!(
            "rules-flushed-in-the-pod",
            &[52],
            "rules that a privileged container flushes are back before long, and an Event says so",
            flushed
        ),
        scenario!(
            "port-of-the-proxy-taken",
            &[42, 64],
            "a pod whose application has a port of the proxy harms itself only",
            port_taken
        ),
    ]
}

async fn proxy_ports(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("ports", Distance::CrossNode).await?;
    let outside = ground.pod(&ground.spec(&pods.namespace, "outside", 1)?).await?;
    for client in [&outside, &pods.client] {
        for port in OWN_PORTS {
            let to = pods.server.addr(port);
            let answers = ground.ask(client, to, &["--deadline", "5"]).await?;
            let expected = format!("no answer for {} from port {port}", client.name);
            expect(&expected, answers, |answers| answers.answered == 0)?;
        }
    }
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

async fn flushed(ground: &Ground) -> anyhow::Result<()> {
    super::options::ours(ground)?;
    let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
    let namespace = ground.namespace("flushed", &privileged).await?;
    let mut client = ground.spec(&namespace, "client", 1)?.label(MODE_LABEL, "ambient");
    client.main.capabilities = vec!["NET_ADMIN"];
    let server = ground.spec(&namespace, "server", 2)?.label(MODE_LABEL, "ambient");
    let (client, server) = tokio::try_join!(ground.pod(&client), ground.pod(&server))?;
    ground.until_captured(&client, &server).await?;
    let limit = Duration::from_secs(30);
    let flush = ["nft", "flush", "ruleset"];
    let ran = ground.cluster.run(&namespace, &client.name, &flush, limit).await?;
    if !ran.ok() {
        return Err(Skip(format!("needs nft with NET_ADMIN in a pod: {}", ran.stderr)).into());
    }
    let told = async || {
        let events = ground.cluster.events_of(&client.path()).await;
        events.contains(" Drifted").then_some(())
    };
    eventually("an Event Drifted", PATIENCE, told).await?;
    ground.until_captured(&client, &server).await?;
    let seen = ground.exchange(&client, &Target::pod(&server)).await?;
    expect("the tunnel, and no clear text", seen, Seen::is_captured)
}

async fn port_taken(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("taken", Distance::CrossNode).await?;
    let mut greedy = ground.spec(&pods.namespace, "greedy", 1)?;
    let command = [PROGRAM, "app", "serve", "--lines", "8080", "--lines", "15008"];
    greedy.main = ContainerSpec::new(&ground.image, &command);
    let greedy = ground.pod(&greedy).await?;
    ground.cluster.label(&greedy.path(), MODE_LABEL, Some("ambient")).await?;
    // Others that come after it are captured as ever.
    let next = ground.spec(&pods.namespace, "next", 1)?.label(MODE_LABEL, "ambient");
    let next = ground.pod(&next).await?;
    ground.until_redirection(&next, Some("enabled")).await?;
    ground.until_captured(&next, &pods.server).await?;
    ground.until_captured(&pods.client, &pods.server).await?;
    ground.expect_redirection(&greedy, None).await
}
