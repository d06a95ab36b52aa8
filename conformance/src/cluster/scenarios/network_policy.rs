//! Network policies of the primary CNI, where it enforces any: they see the tunnel's port.

use anyhow::Context;
use serde_json::{Value, json};

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::Ground;
use crate::cluster::pods::{APP_PORT, Distance, HTTP_PORT, MODE_LABEL};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Skip, expect};

/// How often a denied connection is tried before the CNI counts as one without policies: each
/// waits for five seconds at most.
const TRIES: usize = 6;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "default-deny-and-15008",
            &[19],
            "under default-deny captured pods talk where a policy admits port 15008, and probes pass",
            admitted
        ),
        scenario!(
            "policy-without-15008",
            &[19],
            "a policy that admits the application's port only stops the tunnel, as documented",
            not_admitted
        ),
    ]
}

/// What an ingress policy admits: the client, at one port.
fn ingress(port: u16) -> Value {
    json!([
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
         "ports": [{"protocol": "TCP", "port": port}]},
    ])
}

async fn admitted(ground: &Ground) -> anyhow::Result<()> {
    enforced(ground).await?;
    let namespace = ground.namespace("admitted", &[(MODE_LABEL, "ambient")]).await?;
    let client = ground.spec(&namespace, "client", 1)?;
    let mut server = ground.spec(&namespace, "server", 2)?;
    server.main.probes.readiness = Some(json!({"httpGet": {"path": "/", "port": HTTP_PORT}}));
    ground.network_policy(&namespace, "deny", "server", &json!([])).await?;
    ground.network_policy(&namespace, "admit", "server", &ingress(15008)).await?;
    // Ready means that its probe has passed.
    let started = tokio::try_join!(ground.pod(&client), ground.pod(&server));
    let (client, server) = started.context(
        "a probe under default-deny: on Cilium it passes with the policy that admits the probes' \
         source, chart value cilium.probePolicy=true",
    )?;
    ground.until_redirection(&client, Some("enabled")).await?;
    ground.until_redirection(&server, Some("enabled")).await?;
    ground.until_captured(&client, &server).await?;
    let seen = ground.exchange(&client, &Target::pod(&server)).await?;
    expect("the tunnel, and no clear text", seen, Seen::is_captured)
}

/// The policy is there before the pods: a tunnel that is open already goes on, since engines let
/// established connections pass.
async fn not_admitted(ground: &Ground) -> anyhow::Result<()> {
    enforced(ground).await?;
    let namespace = ground.namespace("unadmitted", &[(MODE_LABEL, "ambient")]).await?;
    ground.network_policy(&namespace, "app", "server", &ingress(APP_PORT)).await?;
    let client = ground.spec(&namespace, "client", 1)?;
    let server = ground.spec(&namespace, "server", 2)?;
    let (client, server) = tokio::try_join!(ground.pod(&client), ground.pod(&server))?;
    ground.until_redirection(&client, Some("enabled")).await?;
    ground.until_redirection(&server, Some("enabled")).await?;
    let target = Target::pod(&server).more(&["--deadline", "8"]);
    for _ in 0..2 {
        let seen = ground.exchange(&client, &target).await?;
        expect("no answer, and no clear text instead", seen, Seen::is_blocked)?;
    }
    ground.network_policy(&namespace, "tunnel", "server", &ingress(15008)).await?;
    ground.until_captured(&client, &server).await.map(drop)
}

/// Whether a default-deny policy stops anything here, found out with pods outside the mesh.
async fn enforced(ground: &Ground) -> anyhow::Result<()> {
    let found = ground.policy_engine.get_or_try_init(|| try_out(ground)).await?;
    if *found {
        return Ok(());
    }
    let why = "not applicable: the primary CNI does not enforce network policies here";
    Err(Skip(why.to_owned()).into())
}

async fn try_out(ground: &Ground) -> anyhow::Result<bool> {
    let pods = ground.couple("engine", Distance::CrossNode, &[]).await?;
    let to = pods.server.addr(APP_PORT);
    ground.until_answered(&pods.client, to, &["--deadline", "5"]).await?;
    ground.network_policy(&pods.namespace, "deny", "server", &json!([])).await?;
    for _ in 0..TRIES {
        if ground.ask(&pods.client, to, &["--deadline", "5"]).await?.answered == 0 {
            return Ok(true);
        }
        // A policy comes into force after a while; nothing else can be observed of that.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(false)
}
