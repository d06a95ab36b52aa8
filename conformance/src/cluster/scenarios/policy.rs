//! ALLOW, DENY and STRICT at the destination.

use serde_json::json;

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::pods::{Couple, Distance, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{expect, expect_within};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "deny-by-identity",
            &[67],
            "a DENY for one service account stops its pod and no other",
            deny
        ),
        scenario!(
            "allow-by-identity",
            &[67],
            "an ALLOW for one service account admits its pod and no other",
            allow
        ),
        scenario!(
            "identity-of-the-client",
            &[67],
            "the server's proxy writes down the client's identity, in the mesh's trust domain",
            identity
        ),
        scenario!(
            "clear-text-from-outside",
            &[4],
            "a pod outside the mesh reaches a captured one in clear text",
            permissive
        ),
        scenario!(
            "strict-refuses-clear-text",
            &[4, 18],
            "with STRICT a pod outside the mesh is turned away, on any node; captured ones pass",
            strict
        ),
    ]
}

/// A captured couple, and one more captured pod beside the client.
async fn trio(ground: &Ground, name: &str) -> anyhow::Result<(Couple, TestPod)> {
    let pods = ground.captured_couple(name, Distance::CrossNode).await?;
    let other = ground.spec(&pods.namespace, "other", 1)?.label(MODE_LABEL, "ambient");
    let other = ground.pod(&other).await?;
    ground.until_captured(&other, &pods.server).await?;
    Ok((pods, other))
}

/// Whatever the trust domain is called.
fn principal(pods: &Couple, account: &str) -> String {
    format!("*/ns/{}/sa/{account}", pods.namespace)
}

async fn deny(ground: &Ground) -> anyhow::Result<()> {
    let (pods, other) = trio(ground, "deny").await?;
    let rule = json!({"from": [{"source": {"principals": [principal(&pods, "other")]}}]});
    let spec = json!({"action": "DENY", "rules": [rule]});
    let policy = ground.authorization_policy(&pods.namespace, "no-other", &spec).await?;
    ground.until_blocked(&other, &pods.server).await?;
    let seen = ground.exchange(&pods.client, &Target::pod(&pods.server)).await?;
    expect("client passes, through the tunnel", seen, Seen::is_captured)?;
    ground.cluster.delete(&policy).await?;
    ground.until_captured(&other, &pods.server).await.map(drop)
}

async fn allow(ground: &Ground) -> anyhow::Result<()> {
    let (pods, other) = trio(ground, "allow").await?;
    let rule = json!({"from": [{"source": {"principals": [principal(&pods, "client")]}}]});
    let spec = json!({"action": "ALLOW", "rules": [rule]});
    ground.authorization_policy(&pods.namespace, "client-only", &spec).await?;
    ground.until_blocked(&other, &pods.server).await?;
    ground.until_captured(&pods.client, &pods.server).await.map(drop)
}

/// An identity is known only from a certificate that was verified: the proxy has none else to
/// write down.
async fn identity(ground: &Ground) -> anyhow::Result<()> {
    let part = ground.parts.ztunnel()?;
    let domain = part.setting(&ground.cluster, "TRUST_DOMAIN").await?;
    let domain = domain.unwrap_or_else(|| "cluster.local".to_owned());
    let pods = ground.captured_couple("identity", Distance::CrossNode).await?;
    let identity = format!("spiffe://{domain}/ns/{}/sa/client", pods.namespace);
    let ip = pods.server.ip().to_string();
    let inbound = async || {
        let log = part.log_on(&ground.cluster, &pods.server.node).await;
        let about = |line: &&str| line.contains("inbound") && line.contains(&ip);
        Ok(log.lines().rev().find(about).unwrap_or("no line about the server").to_owned())
    };
    let expected = format!("the proxy's log names {identity}");
    expect_within(&expected, PATIENCE, inbound, |line| line.contains(&identity)).await.map(drop)
}

async fn permissive(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("permissive", &[]).await?;
    let server = ground.spec(&namespace, "server", 2)?.label(MODE_LABEL, "ambient");
    let outside = ground.spec(&namespace, "outside", 1)?;
    let (server, outside) = tokio::try_join!(ground.pod(&server), ground.pod(&outside))?;
    ground.until_redirection(&server, Some("enabled")).await?;
    let seen = ground.until_direct(&outside, &server).await?;
    let expected = format!("the server sees the client's own address, {}", outside.ip());
    expect(&expected, seen.answers, |answers| answers.peers == [outside.ip()])
}

async fn strict(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("strict", Distance::CrossNode).await?;
    let far = ground.spec(&pods.namespace, "far", 1)?;
    let near = ground.spec(&pods.namespace, "near", 2)?;
    let (far, near) = tokio::try_join!(ground.pod(&far), ground.pod(&near))?;
    for outside in [&far, &near] {
        ground.until_direct(outside, &pods.server).await?;
    }
    let policy = ground.strict(&pods.namespace).await?;
    for outside in [&far, &near] {
        // What is said can be read on the way: a client in clear text speaks before it is told
        // that nobody listens.
        let target = Target::pod(&pods.server);
        let turned_away = |seen: &Seen| seen.answers.answered == 0;
        ground.until("clear text is turned away", outside, &target, turned_away).await?;
    }
    ground.until_captured(&pods.client, &pods.server).await?;
    ground.cluster.delete(&policy).await?;
    ground.until_direct(&far, &pods.server).await.map(drop)
}
