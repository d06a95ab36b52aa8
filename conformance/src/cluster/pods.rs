//! Test pods: all run the same program, so that each can ask and answer.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use lab::cluster::access::{PodSpec, Usual, paths};
use serde_json::Value;

use super::ground::{Ground, PATIENCE, START};
use super::patience::eventually;
use super::room::Room;
use crate::scenario::expect;

/// This program in its image.
pub(crate) const PROGRAM: &str = "/usr/local/bin/conformance";
/// Where each test pod answers lines.
pub(crate) const APP_PORT: u16 = 8080;
/// Where it speaks first.
pub(crate) const GREET_PORT: u16 = 8081;
/// Where it answers HTTP and gRPC probes.
pub(crate) const HTTP_PORT: u16 = 8082;
/// Where it sends datagrams back.
pub(crate) const UDP_PORT: u16 = 8083;
/// Label that puts a pod or a namespace into the mesh, or keeps a pod out of it.
pub(crate) const MODE_LABEL: &str = "istio.io/dataplane-mode";
/// Annotation that says "reach this pod through the tunnel".
pub(crate) const REDIRECTION: &str = "ambient.istio.io/redirection";

/// A pod that runs.
#[derive(Clone, Debug)]
pub(crate) struct TestPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ips: Vec<IpAddr>,
    pub node: String,
}

impl TestPod {
    /// Its first address with a port.
    pub(crate) fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    /// Its first address.
    pub(crate) fn ip(&self) -> IpAddr {
        *self.ips.first().expect("a pod is read with an address, or not at all")
    }

    pub(crate) fn path(&self) -> String {
        paths::pod(&self.namespace, &self.name)
    }

    pub(crate) fn read(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let ips = object["status"]["podIPs"].as_array().into_iter().flatten();
        let ips: Vec<_> = ips.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
        Some(Self {
            namespace: text(&object["metadata"]["namespace"])?,
            name: text(&object["metadata"]["name"])?,
            uid: text(&object["metadata"]["uid"])?,
            node: text(&object["spec"]["nodeName"])?,
            ips: (!ips.is_empty()).then_some(ips)?,
        })
    }
}

/// Two pods that talk, each with a service account of its own name.
pub(crate) struct Couple {
    pub namespace: String,
    pub client: TestPod,
    pub server: TestPod,
}

/// On which node the client of a couple is; the server is on the second, or alone with it on
/// the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distance {
    SameNode,
    CrossNode,
}

impl Ground {
    /// A test pod on the first or second node, outside the mesh, with a service account of its
    /// name.
    pub(crate) fn spec(&self, namespace: &str, name: &str, node: usize) -> anyhow::Result<PodSpec> {
        let ports = [
            ("--lines", APP_PORT),
            ("--greet", GREET_PORT),
            ("--http", HTTP_PORT),
            ("--udp", UDP_PORT),
        ];
        let ports: Vec<_> = ports.iter().map(|(flag, port)| format!("{flag}={port}")).collect();
        let mut command = vec![PROGRAM, "app", "serve"];
        command.extend(ports.iter().map(String::as_str));
        let node = &self.node(node)?.name;
        let mut spec = PodSpec::new(namespace, name, &self.image, &command).on(node).account(name);
        if self.room != Room::Own {
            // The pod may have to watch its own links.
            spec.main.usual = Usual::Kept;
        }
        Ok(spec)
    }

    /// Creates a test pod and waits until it answers.
    pub(crate) async fn pod(&self, spec: &PodSpec) -> anyhow::Result<TestPod> {
        self.cluster.create_pod(spec).await?;
        self.running(&spec.namespace, &spec.name).await
    }

    /// Waits until a test pod is ready and answers.
    pub(crate) async fn running(&self, namespace: &str, name: &str) -> anyhow::Result<TestPod> {
        let object = self.cluster.wait_ready(namespace, name, START).await?;
        let pod = TestPod::read(&object).context("a ready pod has a node and an address")?;
        let serving = async || {
            let log = self.cluster.logs(namespace, name, Some("app"), 50).await;
            log.ok().filter(|log| log.contains("serving"))
        };
        eventually(&format!("pod {namespace}/{name} answers"), START, serving).await?;
        Ok(pod)
    }

    /// A client and a server, with these labels.
    pub(crate) async fn couple(
        &self,
        name: &str,
        distance: Distance,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Couple> {
        let far = match distance {
            Distance::SameNode => 1,
            Distance::CrossNode => 2,
        };
        let namespace = self.namespace(name, &[]).await?;
        let mut client = self.spec(&namespace, "client", 1)?;
        let mut server = self.spec(&namespace, "server", far)?;
        for (key, value) in labels {
            client = client.label(key, value);
            server = server.label(key, value);
        }
        let (client, server) = tokio::try_join!(self.pod(&client), self.pod(&server))?;
        Ok(Couple { namespace, client, server })
    }

    /// A couple that was captured as it started, and knows each other.
    pub(crate) async fn captured_couple(
        &self,
        name: &str,
        distance: Distance,
    ) -> anyhow::Result<Couple> {
        let pods = self.couple(name, distance, &[(MODE_LABEL, "ambient")]).await?;
        self.until_redirection(&pods.client, Some("enabled")).await?;
        self.until_redirection(&pods.server, Some("enabled")).await?;
        self.until_captured(&pods.client, &pods.server).await?;
        Ok(pods)
    }

    /// Sets or removes the label of the mesh on a running pod, and waits until the pod says so.
    pub(crate) async fn set_mode(&self, pod: &TestPod, mode: Option<&str>) -> anyhow::Result<()> {
        self.cluster.label(&pod.path(), MODE_LABEL, mode).await?;
        self.until_redirection(pod, mode.filter(|mode| *mode == "ambient").map(|_| "enabled")).await
    }

    /// Waits until the pod's annotation reads so.
    pub(crate) async fn until_redirection(
        &self,
        pod: &TestPod,
        wanted: Option<&str>,
    ) -> anyhow::Result<()> {
        let what = format!("{REDIRECTION}={}", wanted.unwrap_or("(absent)"));
        let is_so =
            |object: &Value| object["metadata"]["annotations"][REDIRECTION].as_str() == wanted;
        self.cluster.wait(&pod.path(), &what, PATIENCE, is_so).await?;
        Ok(())
    }

    /// Looks now whether a pod counts as captured.
    pub(crate) async fn expect_redirection(
        &self,
        pod: &TestPod,
        wanted: Option<&str>,
    ) -> anyhow::Result<()> {
        let object = self.cluster.get(&pod.path()).await?;
        let found = object["metadata"]["annotations"][REDIRECTION].as_str();
        let observed = format!("{}: {}", pod.name, found.unwrap_or("no annotation"));
        let expected = format!("{REDIRECTION}={}", wanted.unwrap_or("(absent)"));
        expect(&expected, observed, |_| found == wanted)
    }
}
