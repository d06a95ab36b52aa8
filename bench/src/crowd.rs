//! Many pods of one node without the work of a primary plugin: namespaces with an address,
//! and what the API says about them. This program calls the agent as the plugin does.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lab::{Lab, Node};
use netns::{Fence, NamedNetns, PodNetns};
use plugin_api::{Outcome, Request, Verb};
use serde_json::json;
use tokio::task::JoinSet;

use crate::plugin;
use crate::town::MODE_LABEL;

/// Pods that the API shows, in one Kubernetes namespace of their own.
pub(crate) struct Crowd {
    pub members: Vec<Member>,
    namespace: &'static str,
    socket: PathBuf,
}

/// One pod.
pub(crate) struct Member {
    named: NamedNetns,
    name: String,
    uid: String,
    ip: IpAddr,
}

impl Crowd {
    /// Makes `size` pods on the node, labelled as `mode` says; no plugin has seen them.
    pub(crate) async fn gather(
        (lab, node): (&Lab, &Node),
        fence: &Fence,
        (namespace, number): (&'static str, u8),
        (size, mode): (u8, &str),
    ) -> anyhow::Result<Self> {
        let kube = lab.kube();
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
        });
        kube.create("/api/v1/namespaces", &object).await?;
        let mut members = Vec::new();
        for at in 0..size {
            let name = format!("{namespace}-{at}");
            let ip = Ipv4Addr::new(10, 250, number, at);
            let named = NamedNetns::create(&lab.folder().join("netns"), &name)?;
            set_up(fence, named.netns(), ip)?;
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {MODE_LABEL: mode}},
                "spec": {
                    "nodeName": node.name(),
                    "serviceAccountName": "default",
                    "containers": [{"name": "app", "image": "lab/app"}],
                },
            });
            let pods = format!("/api/v1/namespaces/{namespace}/pods");
            let created = kube.create(&pods, &pod).await?;
            let uid = created["metadata"]["uid"].as_str().context("a pod without UID")?;
            let status = json!({"status": {
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            }});
            kube.merge_patch(&format!("{pods}/{name}/status"), &status).await?;
            members.push(Member { named, name, uid: uid.to_owned(), ip: ip.into() });
        }
        let socket = node.agent_folder().join("plugin.sock");
        Ok(Self { members, namespace, socket })
    }

    /// Calls ADD for one of them: how long the agent took.
    pub(crate) async fn add(&self, member: &Member) -> anyhow::Result<Duration> {
        let (outcome, took) = self.ask(member, Verb::Add).await?;
        ensure!(
            matches!(outcome, Outcome::Captured | Outcome::NotInMesh { .. }),
            "ADD of {}: {outcome:?}",
            member.name
        );
        Ok(took)
    }

    /// Calls ADD for all of them at the same time.
    pub(crate) async fn add_all_at_once(&self) -> anyhow::Result<Vec<Duration>> {
        let mut calls = JoinSet::new();
        for member in &self.members {
            calls.spawn(call(self.socket.clone(), self.request(member, Verb::Add), member.netns()));
        }
        let mut took = Vec::new();
        while let Some(answer) = calls.join_next().await {
            match answer?? {
                (Outcome::Captured, time) => took.push(time),
                (other, _) => bail!("ADD of one of many: {other:?}"),
            }
        }
        Ok(took)
    }

    /// Calls DEL for all, and has the API forget them.
    pub(crate) async fn disperse(self, lab: &Lab) -> anyhow::Result<()> {
        for member in &self.members {
            let (outcome, _) = self.ask(member, Verb::Del).await?;
            ensure!(outcome == Outcome::Done, "DEL of {}: {outcome:?}", member.name);
            let path = format!("/api/v1/namespaces/{}/pods/{}", self.namespace, member.name);
            lab.kube().delete(&format!("{path}?gracePeriodSeconds=0")).await?;
        }
        Ok(())
    }

    /// Labels all of them.
    pub(crate) async fn label(&self, lab: &Lab, mode: &str) -> anyhow::Result<()> {
        for member in &self.members {
            let mode = Some(mode);
            lab.kube().label_pod(self.namespace, &member.name, MODE_LABEL, mode).await?;
        }
        Ok(())
    }

    async fn ask(&self, member: &Member, verb: Verb) -> anyhow::Result<(Outcome, Duration)> {
        call(self.socket.clone(), self.request(member, verb), member.netns()).await
    }

    fn request(&self, member: &Member, verb: Verb) -> Request {
        Request {
            version: plugin_api::VERSION,
            verb,
            namespace: self.namespace.to_owned(),
            name: member.name.clone(),
            uid: Some(member.uid.clone()),
            container_id: format!("sandbox-{}", member.name),
            ifname: "eth0".to_owned(),
            network: Some("lab".to_owned()),
            netns_path: Some(member.named.path().display().to_string()),
            ips: vec![member.ip],
        }
    }
}

impl Member {
    /// Its network namespace.
    pub(crate) fn netns(&self) -> PodNetns {
        self.named.netns().clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "a plugin blocks, and this enters no namespace")]
async fn call(
    socket: PathBuf,
    request: Request,
    netns: PodNetns,
) -> anyhow::Result<(Outcome, Duration)> {
    let netns = (request.verb != Verb::Del).then_some(netns);
    tokio::task::spawn_blocking(move || plugin::ask(&socket, &request, netns.as_ref())).await?
}

/// What the runtime and the primary plugin would have done.
fn set_up(fence: &Fence, netns: &PodNetns, ip: Ipv4Addr) -> anyhow::Result<()> {
    inside(fence, netns, "ip", "link set lo up")?;
    inside(fence, netns, "ip", &format!("address add {ip}/32 dev lo"))
}

/// Runs a program in a namespace.
#[expect(clippy::disallowed_methods, reason = "pods are made, and broken, with the system's tools")]
pub(crate) fn inside(
    fence: &Fence,
    netns: &PodNetns,
    program: &'static str,
    arguments: &str,
) -> anyhow::Result<()> {
    let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let output = fence.run(netns, move || Command::new(program).args(words).output())??;
    ensure!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
