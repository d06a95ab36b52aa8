//! The agent's side of ZDS, as little of it as ztunnel needs.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use netns::PodNetns;
use tokio::time::timeout;
use zds::link::{Link, Listener};
use zds::{
    AddWorkload, DelWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest,
    workload_request::Payload,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A session with one ztunnel.
pub(crate) struct Agent {
    link: Link,
}

impl Agent {
    /// Waits for a ztunnel at the socket, and tells it that there is no pod yet.
    pub(crate) async fn meet(
        path: &Path,
        started: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut listener = Listener::bind(path)?;
        started()?;
        let link = timeout(PATIENCE, listener.accept()).await.context("no ztunnel came")??;
        let hello = timeout(PATIENCE, link.recv()).await.context("no hello came")??;
        let hello = hello.context("ztunnel left")?;
        zds::decode_hello(&hello.bytes, &hello.fds)?;
        let agent = Self { link };
        agent.ask(Payload::SnapshotSent(SnapshotSent {}), None).await?;
        Ok(agent)
    }

    /// Adds a pod; how long the acknowledgement took.
    pub(crate) async fn add(&self, number: usize, netns: &PodNetns) -> anyhow::Result<Duration> {
        let info = WorkloadInfo {
            name: format!("pod-{number}"),
            namespace: "bench".to_owned(),
            service_account: "default".to_owned(),
        };
        let add = AddWorkload {
            uid: format!("uid-{number}"),
            workload_info: Some(info),
            ..AddWorkload::default()
        };
        self.ask(Payload::Add(add), Some(netns)).await
    }

    /// Takes a pod away.
    pub(crate) async fn del(&self, number: usize) -> anyhow::Result<Duration> {
        self.ask(Payload::Del(DelWorkload { uid: format!("uid-{number}") }), None).await
    }

    async fn ask(&self, payload: Payload, netns: Option<&PodNetns>) -> anyhow::Result<Duration> {
        let request = WorkloadRequest { payload: Some(payload), ..WorkloadRequest::default() };
        let bytes = zds::encode(&request)?;
        let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
        let start = Instant::now();
        self.link.send(&bytes, &fds).await?;
        let answer = timeout(PATIENCE, self.link.recv()).await.context("no answer")??;
        let took = start.elapsed();
        let answer = answer.context("ztunnel left")?;
        match zds::decode_response(&answer.bytes, answer.fds)? {
            Ok(_) => Ok(took),
            Err(refusal) => bail!("ztunnel refused: {refusal}"),
        }
    }
}
