//! The kubelet's probes of captured pods.

use lab::cluster::access::{PodSpec, Probes};
use serde_json::json;

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::{Ground, PATIENCE};
use crate::cluster::patience::eventually;
use crate::cluster::pods::{APP_PORT, Distance, HTTP_PORT, MODE_LABEL, PROGRAM, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::{Differs, expect};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "probes-under-strict",
            &[18],
            "http, tcp, gRPC and exec probes of a captured pod pass under STRICT, also later on",
            under_strict
        ),
        scenario!(
            "probe-port-for-the-node-only",
            &[20],
            "under STRICT other pods are turned away at the probe port, near and far",
            others_are_not_exempt
        ),
        scenario!(
            "no-probe-no-exemption",
            &[21],
            "under STRICT a port that no probe names takes no clear text from the node either",
            undeclared_port
        ),
    ]
}

/// One probe of each kind, on ports of their own.
pub(super) fn probed(spec: &mut PodSpec) {
    spec.main.probes = Probes {
        startup: Some(json!({"exec": {"command": [PROGRAM, "--version"]}})),
        readiness: Some(json!({"httpGet": {"path": "/", "port": HTTP_PORT}})),
        liveness: Some(json!({"tcpSocket": {"port": APP_PORT}})),
    };
}

async fn under_strict(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("probes", &[(MODE_LABEL, "ambient")]).await?;
    ground.strict(&namespace).await?;
    let mut mixed = ground.spec(&namespace, "mixed", 1)?;
    probed(&mut mixed);
    let mut grpc = ground.spec(&namespace, "grpc", 1)?;
    grpc.main.probes.readiness = Some(json!({"grpc": {"port": HTTP_PORT}}));
    let outside = ground.spec(&namespace, "outside", 1)?.label(MODE_LABEL, "none");
    let (mixed, grpc, outside) =
        tokio::try_join!(ground.pod(&mixed), ground.pod(&grpc), ground.pod(&outside))?;
    for pod in [&mixed, &grpc] {
        ground.until_redirection(pod, Some("enabled")).await?;
        turned_away(ground, &outside, pod, 8081).await?;
        more_probes(ground, pod).await?;
        still_well(ground, pod).await?;
    }
    Ok(())
}

/// From now on, three more probes must arrive at the application.
pub(super) async fn more_probes(ground: &Ground, pod: &TestPod) -> anyhow::Result<()> {
    let before = probes_of(ground, pod).await?;
    let arrived = async || {
        let now = probes_of(ground, pod).await.ok()?;
        (now >= before + 3).then_some(())
    };
    match eventually("three more probes", PATIENCE, arrived).await {
        Ok(()) => Ok(()),
        Err(_) => {
            let now = probes_of(ground, pod).await?;
            let expected = format!("three more probes at {} within {PATIENCE:?}", pod.name);
            Err(Differs { expected, observed: format!("{}", now - before) }.into())
        }
    }
}

async fn probes_of(ground: &Ground, pod: &TestPod) -> anyhow::Result<usize> {
    let log = ground.cluster.logs(&pod.namespace, &pod.name, Some("app"), 2000).await?;
    Ok(log.lines().filter(|line| line.starts_with("probed from")).count())
}

/// Ready, and never started again.
pub(super) async fn still_well(ground: &Ground, pod: &TestPod) -> anyhow::Result<()> {
    let object = ground.cluster.get(&pod.path()).await?;
    let status = &object["status"]["containerStatuses"][0];
    let (ready, restarts) = (&status["ready"], status["restartCount"].as_u64());
    let observed = format!("{}: ready {ready}, {restarts:?} restarts", pod.name);
    expect("ready, and not restarted", observed, |_| *ready == true && restarts == Some(0))
}

async fn others_are_not_exempt(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("exempt", &[]).await?;
    ground.strict(&namespace).await?;
    let mut server = ground.spec(&namespace, "server", 1)?.label(MODE_LABEL, "ambient");
    probed(&mut server);
    let near = ground.spec(&namespace, "near", 1)?;
    let (server, near) = tokio::try_join!(ground.pod(&server), ground.pod(&near))?;
    ground.until_redirection(&server, Some("enabled")).await?;
    for port in [HTTP_PORT, APP_PORT] {
        turned_away(ground, &near, &server, port).await?;
    }
    if let Ok(far) = ground.spec(&namespace, "far", 2) {
        let far = ground.pod(&far).await?;
        for port in [HTTP_PORT, APP_PORT] {
            turned_away(ground, &far, &server, port).await?;
        }
    }
    still_well(ground, &server).await
}

/// The observer stands in the node's own network: at the probe port it passes, as the kubelet
/// does, and at no other.
async fn undeclared_port(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("undeclared", Distance::SameNode).await?;
    ground.strict(&pods.namespace).await?;
    let outside = ground.pod(&ground.spec(&pods.namespace, "outside", 1)?).await?;
    turned_away(ground, &outside, &pods.server, APP_PORT).await?;
    let node = ground.observers().await?.as_asker(ground, &pods.server.node).await?;
    turned_away(ground, &node, &pods.server, APP_PORT).await?;
    let target = Target::pod(&pods.server);
    let seen = ground.exchange(&pods.client, &target).await?;
    expect("captured pods pass", seen, Seen::is_captured)
}

async fn turned_away(
    ground: &Ground,
    client: &TestPod,
    server: &TestPod,
    port: u16,
) -> anyhow::Result<()> {
    let way = if port == HTTP_PORT { "http" } else { "lines" };
    let way = if port == 8081 { "greeted" } else { way };
    let what = format!("{} is turned away at {}'s port {port}", client.name, server.name);
    let more = ["--way", way, "--deadline", "5"];
    let to = server.addr(port);
    ground.until_asked(&what, client, to, &more, |answers| answers.answered == 0).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_kind_of_probe_is_asked_for() {
        let mut spec = PodSpec::new("ns", "pod", "image", &["app"]);
        probed(&mut spec);
        let kinds = |probe: &Option<Value>| {
            probe.as_ref().and_then(Value::as_object).map(|object| object.keys().next().cloned())
        };
        let Probes { startup, readiness, liveness } = &spec.main.probes;
        let all = [startup, readiness, liveness].map(kinds);
        let wanted = ["exec", "httpGet", "tcpSocket"].map(|kind| Some(Some(kind.to_owned())));
        assert_eq!(all, wanted);
    }
}
