//! Pods in the nodes' own network that watch the interfaces.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use lab::cluster::access::{Network, PodSpec, Review, Running, paths};

use super::ground::{Ground, PATIENCE, START};
use super::pods::{PROGRAM, TestPod};
use super::room::Room;
use crate::pod_app::Sighting;
use crate::scenario::Skip;

/// How long the API server may take for one step of a watch.
const STEP: Duration = Duration::from_secs(60);

/// One observer per node on which test pods run.
pub(crate) struct Observers {
    pub namespace: String,
    /// Node and pod.
    pods: Vec<(String, String)>,
}

/// Observers that watch.
pub(crate) struct Watching {
    running: Vec<Running>,
}

impl Observers {
    pub(super) async fn start(ground: &Ground) -> anyhow::Result<Self> {
        // Who has a namespace only is told so before anything is made.
        if let Room::Given(_) = &ground.room {
            bail!("the suite is to stay in its namespace");
        }
        if let Review::Refused(why) =
            ground.cluster.may("create", "namespaces", "").await.context("ask for rights")?
        {
            bail!("{why}");
        }
        let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
        let namespace = ground.namespace("observers", &privileged).await?;
        let mut pods = Vec::new();
        for (number, node) in ground.nodes.iter().take(2).enumerate() {
            let name = format!("observer-{}", number + 1);
            let command = [PROGRAM, "app", "serve"];
            let mut spec = PodSpec::new(&namespace, &name, &ground.image, &command).on(&node.name);
            spec.network = Network::Node;
            // The second is for a receive buffer that does not run over on a busy node.
            spec.main.capabilities = vec!["NET_RAW", "NET_ADMIN"];
            let pods_of = paths::core(&namespace, "pods");
            if let Review::Refused(why) =
                ground.cluster.would_accept(&pods_of, &spec.object()).await?
            {
                bail!("{why}");
            }
            ground.cluster.create_pod(&spec).await?;
            pods.push((node.name.clone(), name));
        }
        for (_, pod) in &pods {
            ground.cluster.wait_ready(&namespace, pod, START).await?;
        }
        Ok(Self { namespace, pods })
    }

    /// The observer of a node as one that asks, from the node's own network.
    pub(crate) async fn as_asker(&self, ground: &Ground, node: &str) -> anyhow::Result<TestPod> {
        let (_, pod) = self
            .pods
            .iter()
            .find(|(name, _)| name == node)
            .with_context(|| format!("there is no observer on {node}"))?;
        let object = ground.cluster.get(&paths::pod(&self.namespace, pod)).await?;
        TestPod::read(&object).context("a running pod has a node and an address")
    }

    /// Waits until the observer of a node that was away is there again.
    pub(crate) async fn ready_again(&self, ground: &Ground, node: &str) -> anyhow::Result<()> {
        for (_, pod) in self.pods.iter().filter(|(name, _)| name == node) {
            let restarted = |object: &serde_json::Value| {
                let container = &object["status"]["containerStatuses"][0];
                container["restartCount"].as_u64() > Some(0) && container["ready"] == true
            };
            let path = paths::pod(&self.namespace, pod);
            ground.cluster.wait(&path, "started again", 2 * START, restarted).await?;
        }
        Ok(())
    }

    /// Watches on these nodes what goes between two sets of addresses, from now on.
    pub(crate) async fn watch(
        &self,
        ground: &Ground,
        nodes: &[&str],
        (from, to): (&[IpAddr], &[IpAddr]),
        marker: &str,
    ) -> anyhow::Result<Watching> {
        let words = words(from, to, marker);
        let mut running = Vec::new();
        for (node, pod) in &self.pods {
            if nodes.contains(&node.as_str()) {
                let started = start(ground, (&self.namespace, pod), &words).await?;
                let watch = started.map_err(|why| anyhow!("the observer on {node}: {why}"))?;
                running.push(watch);
            }
        }
        Ok(Watching { running })
    }
}

impl Watching {
    /// Watches inside of the pods themselves, which have `NET_RAW` unless somebody took it
    /// from them: what enters and leaves their links is what the wire carries.
    pub(super) async fn inside(
        ground: &Ground,
        pods: [&TestPod; 2],
        (from, to): (&[IpAddr], &[IpAddr]),
        marker: &str,
    ) -> anyhow::Result<Self> {
        let words = words(from, to, marker);
        let [client, server] = pods;
        let server = (server.uid != client.uid).then_some(server);
        let mut running = Vec::new();
        for pod in std::iter::once(client).chain(server) {
            let started = start(ground, (&pod.namespace, &pod.name), &words).await?;
            let needs = |why| Skip(format!("needs NET_RAW inside of pods, or an observer: {why}"));
            running.push(started.map_err(needs)?);
        }
        Ok(Self { running })
    }

    /// What was seen until now.
    pub(crate) async fn close(self) -> anyhow::Result<Sighting> {
        let mut all = Sighting::default();
        for watch in self.running {
            let ran = watch.finish(PATIENCE).await?;
            let line = ran.stdout.lines().last().unwrap_or_default();
            let seen: Sighting = serde_json::from_str(line)
                .with_context(|| format!("an observer said {line:?} {:?}", ran.stderr))?;
            all = all.and(seen);
        }
        Ok(all)
    }
}

/// Starts one watch, once it watches; otherwise what it said instead.
async fn start(
    ground: &Ground,
    (namespace, pod): (&str, &str),
    words: &[String],
) -> anyhow::Result<Result<Running, String>> {
    let argv: Vec<_> = words.iter().map(String::as_str).collect();
    let mut watch = ground.cluster.start(namespace, pod, &argv, STEP).await?;
    match watch.line(STEP).await? {
        Some(line) if line == "watching" => Ok(Ok(watch)),
        _ => Ok(Err(watch.finish(STEP).await?.stderr)),
    }
}

fn words(from: &[IpAddr], to: &[IpAddr], marker: &str) -> [String; 9] {
    let (from, to) = (list(from), list(to));
    [PROGRAM, "app", "watch", "--from", &from, "--to", &to, "--marker", marker].map(str::to_owned)
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}
