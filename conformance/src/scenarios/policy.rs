//! ALLOW and DENY at the destination.

pub(super) mod peers;

use std::sync::Arc;

use lab::Pod;
use serde_json::{Value, json};

use crate::observe::{self, Seen, until};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, Couple, World, in_namespace};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("deny-by-principal", "a DENY policy stops one identity, others pass", deny),
        scenario!("allow-by-namespace", "an ALLOW policy admits only what it names", allow),
        scenario!("deny-by-port", "a DENY policy for one port leaves the others open", ports),
        scenario!(
            "deny-cuts-live-connections",
            "a policy that arrives ends the connections it forbids",
            live
        ),
        scenario!(
            "mutual-tls-required",
            "a DENY of everyone without an identity keeps plaintext out",
            strict
        ),
    ]
    .into_iter()
    .chain(peers::scenarios())
    .collect()
}

async fn deny(world: &World) -> anyhow::Result<()> {
    let (pods, other) = trio(world, "deny").await?;
    let rule = json!({"from": [{"source": {"principals": ["cluster.local/ns/deny/sa/other"]}}]});
    apply(world, "deny", "no-other", "DENY", &[rule]).await?;
    observe::refused(world, &other, &pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    remove(world, "deny", "no-other").await?;
    observe::tunnelled(world, &other, &pods.server).await
}

async fn allow(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("allow").await?;
    let stranger = world.pod(in_namespace("elsewhere", "stranger", 1)).await?;
    world.enrol(&stranger).await?;
    let rule = json!({"from": [{"source": {"namespaces": ["allow"]}}]});
    apply(world, "allow", "own-only", "ALLOW", &[rule]).await?;
    observe::refused(world, &stranger, &pods.server).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    remove(world, "allow", "own-only").await?;
    observe::tunnelled(world, &stranger, &pods.server).await
}

async fn ports(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("ports-denied").await?;
    let _second = pods.server.serve(APP_PORT + 1).await?;
    let rule = json!({"to": [{"operation": {"ports": [APP_PORT.to_string()]}}]});
    apply(world, "ports-denied", "not-8080", "DENY", &[rule]).await?;
    observe::refused(world, &pods.client, &pods.server).await?;
    pods.client.exchange(pods.server.addr(APP_PORT + 1), "the other port").await?;
    remove(world, "ports-denied", "not-8080").await
}

async fn live(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("live").await?;
    let mut talk = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    talk.send_line("before the policy").await?;
    let rule = json!({"from": [{"source": {"principals": ["*"]}}]});
    apply(world, "live", "nobody", "DENY", &[rule]).await?;
    let end = talk.end().await;
    expect("an end of the open connection", format!("{end:?}"), |_| end.is_ok())?;
    remove(world, "live", "nobody").await
}

async fn strict(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("strict").await?;
    let outside = world.pod(in_namespace("strict", "outside", 1)).await?;
    until(world, "outside served", &outside, &pods.server, Seen::is_plain).await?;
    let rule = json!({"from": [{"source": {"notPrincipals": ["*"]}}]});
    apply(world, "strict", "mtls", "DENY", &[rule]).await?;
    until(world, "outside refused", &outside, &pods.server, |seen| seen.reply.is_err()).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    remove(world, "strict", "mtls").await
}

async fn trio(world: &World, namespace: &str) -> anyhow::Result<(Couple, Arc<Pod>)> {
    let pods = world.captured_couple(namespace).await?;
    let other = world.pod(in_namespace(namespace, "other", 1)).await?;
    world.enrol(&other).await?;
    crate::observe::tunnelled(world, &other, &pods.server).await?;
    Ok((pods, other))
}

/// Creates an AuthorizationPolicy for the whole namespace.
async fn apply(
    world: &World,
    namespace: &str,
    name: &str,
    action: &str,
    rules: &[Value],
) -> anyhow::Result<()> {
    create(world, namespace, name, &json!({"action": action, "rules": rules})).await?;
    Ok(())
}

/// Creates an AuthorizationPolicy, and gives its path.
pub(super) async fn create(
    world: &World,
    namespace: &str,
    name: &str,
    spec: &Value,
) -> anyhow::Result<String> {
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    world.lab.kube().create(&collection(namespace), &object).await?;
    Ok(format!("{}/{name}", collection(namespace)))
}

/// Deletes it.
pub(super) async fn remove(world: &World, namespace: &str, name: &str) -> anyhow::Result<()> {
    Ok(world.lab.kube().delete(&format!("{}/{name}", collection(namespace))).await?)
}

fn collection(namespace: &str) -> String {
    format!("/apis/security.istio.io/v1/namespaces/{namespace}/authorizationpolicies")
}
