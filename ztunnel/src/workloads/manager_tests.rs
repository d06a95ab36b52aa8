//! The manager against an agent made here, over a real socket and in real namespaces.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use netns::{Fence, Listen, listen_tcp};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use zds::link::Listener;
use zds::{
    AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest,
    workload_request::Payload,
};

use super::*;
use crate::identity::{CaClient, CaSettings, Certificates, ControlChannel, Token};
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;
use crate::tls::{ControlSettings, RootSource};
use crate::workloads::PodState;

const LIMIT: Duration = Duration::from_secs(10);

/// The agent, the ztunnel under test, and a fence to look into pods.
struct Node {
    agent: Listener,
    fence: Fence,
    readiness: Readiness,
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<Manager>,
    _folder: TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ztunnel.sock");
        let agent = Listener::bind(&socket).unwrap();
        let fence = Fence::new(2).unwrap();
        let readiness = Readiness::default();
        let settings = Settings { retry_every: Duration::from_millis(50), ..Settings::new(socket) };
        let metrics = Metrics::register(&mut Registry::default());
        let context = context(fence.clone());
        let (manager, handle) =
            Manager::new(settings, context, metrics, readiness.clone()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { manager.run(&stop).await }
        });
        Self { agent, fence, readiness, handle, stop, task, _folder: folder }
    }

    /// A connection that has said hello.
    async fn accept(&mut self) -> Agent {
        let link = timeout(LIMIT, self.agent.accept()).await.expect("a connection").unwrap();
        let agent = Agent { link };
        let hello = agent.recv().await;
        assert_eq!(hello.bytes, [0x08, 0x01]);
        agent
    }

    /// Does a socket listen on this port in the pod?
    fn listens(&self, netns: &PodNetns, port: u16) -> bool {
        let needle = format!(":{port:04X} ");
        self.fence
            .run(netns, move || {
                ["tcp", "tcp6"].iter().any(|table| {
                    let path = format!("/proc/thread-self/net/{table}");
                    let text = std::fs::read_to_string(path).unwrap();
                    // The second field is the local address, the fourth the state; 0A listens.
                    text.lines().any(|line| line.contains(&needle) && line.contains(" 0A "))
                })
            })
            .unwrap()
    }

    fn take_port(&self, netns: &PodNetns, port: u16) -> TcpListener {
        let addr = SocketAddr::from(([0u16; 8], port));
        self.fence
            .run(netns, move || listen_tcp(&Listen { addr, backlog: 1, mark: None }))
            .unwrap()
            .unwrap()
    }

    async fn until(&self, what: &str, fulfilled: impl Fn(&Self) -> bool) {
        let poll = async {
            while !fulfilled(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(LIMIT, poll).await.is_err() {
            panic!("not in time: {what}; waiting for {:?}", self.readiness.waiting());
        }
    }
}

struct Agent {
    link: Link,
}

impl Agent {
    async fn recv(&self) -> Packet {
        timeout(LIMIT, self.link.recv()).await.expect("a packet in time").unwrap().unwrap()
    }

    /// Sends a request and returns the answer.
    async fn ask(&self, payload: Payload, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let bytes = zds::encode(&WorkloadRequest { payload: Some(payload) }).unwrap();
        self.link.send(&bytes, fds).await.unwrap();
        let packet = self.recv().await;
        zds::decode_response(&packet.bytes, &packet.fds).unwrap()
    }

    async fn add(&self, uid: &str, netns: &PodNetns) -> Result<(), String> {
        self.ask(add(uid), &[netns.as_fd()]).await
    }

    async fn keep(&self, uid: &str) -> Result<(), String> {
        self.ask(Payload::Keep(KeepWorkload { uid: uid.to_owned() }), &[]).await
    }

    async fn del(&self, uid: &str) -> Result<(), String> {
        self.ask(Payload::Del(DelWorkload { uid: uid.to_owned() }), &[]).await
    }

    async fn snapshot_sent(&self) -> Result<(), String> {
        self.ask(Payload::SnapshotSent(SnapshotSent {}), &[]).await
    }
}

fn add(uid: &str) -> Payload {
    let workload_info = Some(WorkloadInfo {
        name: format!("pod-{uid}"),
        namespace: "shop".to_owned(),
        service_account: "default".to_owned(),
    });
    Payload::Add(AddWorkload { uid: uid.to_owned(), workload_info })
}

/// With a CA that nobody answers for: a pod is served without a certificate, it only
/// cannot speak to anybody yet.
fn context(fence: Fence) -> Arc<ProxyContext> {
    let channel = ControlChannel::new(ControlSettings {
        address: http::Uri::from_static("https://127.0.0.1:1"),
        root: RootSource::File("/nonexistent".into()),
        alt_hostname: None,
    })
    .unwrap();
    let ca = CaSettings { cluster: "Kubernetes".to_owned(), ttl: Duration::from_secs(3600) };
    let certificates =
        Certificates::new(CaClient::new(&channel, Token::from_setting(Some("secret")), ca));
    ProxyContext::new(
        ViewHandle::fixed(mesh::View::default()),
        certificates,
        Telemetry::new(&mut Registry::default()),
        fence,
        crate::worker::Workers::start(std::num::NonZeroUsize::MIN).unwrap(),
        proxy::Settings::default(),
    )
}

#[tokio::test]
async fn pods_come_stay_over_an_outage_and_go() {
    let mut node = Node::start();
    let (a, b) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let agent = node.accept().await;
    agent.add("a", &a).await.unwrap();
    assert!(node.listens(&a, zds::port::INBOUND_HBONE), "an ack means that it listens");
    assert!(node.listens(&a, zds::port::OUTBOUND));
    agent.add("b", &b).await.unwrap();
    assert!(!node.readiness.waiting().is_empty(), "the snapshot is not complete");
    agent.snapshot_sent().await.unwrap();
    node.until("ready", |node| node.readiness.waiting().is_empty()).await;
    let pods = node.handle.pods().await.unwrap();
    assert_eq!(pods.len(), 2);
    assert_eq!(pods["a"].1, PodState::Up);

    // The agent is replaced; it has no descriptor of "a" and does not know "b".
    drop(agent);
    let agent = node.accept().await;
    assert!(node.listens(&a, zds::port::OUTBOUND) && node.listens(&b, zds::port::OUTBOUND));
    agent.keep("a").await.unwrap();
    agent.snapshot_sent().await.unwrap();
    assert!(node.listens(&a, zds::port::OUTBOUND));
    node.until("b is gone", |node| !node.listens(&b, zds::port::OUTBOUND)).await;

    agent.del("a").await.unwrap();
    agent.del("never seen").await.unwrap();
    node.until("a is gone", |node| !node.listens(&a, zds::port::OUTBOUND)).await;
}

#[tokio::test]
async fn a_pod_whose_port_is_taken_waits_and_hurts_no_other() {
    let mut node = Node::start();
    let (a, b) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let taken = node.take_port(&a, zds::port::OUTBOUND);
    let agent = node.accept().await;
    let refusal = agent.add("a", &a).await.expect_err("the port is taken");
    assert!(!refusal.is_empty());
    agent.add("b", &b).await.unwrap();
    agent.snapshot_sent().await.unwrap();
    node.until("ready", |node| node.readiness.waiting().is_empty()).await;
    assert!(!node.listens(&a, zds::port::INBOUND_PLAIN));
    drop(taken);
    node.until("a is served", |node| node.listens(&a, zds::port::INBOUND_PLAIN)).await;
    assert!(node.listens(&a, zds::port::OUTBOUND));
}

#[tokio::test]
async fn a_known_pod_in_a_new_namespace_moves() {
    let mut node = Node::start();
    let (old, new) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let agent = node.accept().await;
    agent.add("a", &old).await.unwrap();
    agent.snapshot_sent().await.unwrap();
    agent.add("a", &old).await.unwrap();
    agent.add("a", &new).await.unwrap();
    assert!(node.listens(&new, zds::port::OUTBOUND));
    node.until("the old one is free", |node| !node.listens(&old, zds::port::OUTBOUND)).await;
}

#[tokio::test]
async fn broken_packets_are_answered_and_the_next_connection_works() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let agent = node.accept().await;
    agent.add("a", &a).await.unwrap();
    agent.snapshot_sent().await.unwrap();

    let two = [a.as_fd(), a.as_fd()];
    agent.ask(add("b"), &two).await.expect_err("two descriptors");
    let end = timeout(LIMIT, agent.link.recv()).await.unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "the connection ends: {end:?}");

    let agent = node.accept().await;
    agent.ask(add("b"), &[]).await.expect_err("no descriptor");
    let agent = node.accept().await;
    let file = tempfile::tempfile().unwrap();
    agent.ask(add("b"), &[file.as_fd()]).await.expect_err("a plain file");
    let own = PodNetns::current().unwrap();
    agent.add("b", &own).await.expect_err("ztunnel's own namespace");
    assert!(!node.listens(&own, zds::port::OUTBOUND));
    agent.add("a", &a).await.unwrap();
    agent.snapshot_sent().await.unwrap();
    node.until("ready", |node| node.readiness.waiting().is_empty()).await;
}

#[tokio::test]
async fn the_end_lets_go_of_every_pod() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let agent = node.accept().await;
    agent.add("a", &a).await.unwrap();
    agent.snapshot_sent().await.unwrap();
    node.stop.cancel();
    let manager = timeout(LIMIT, node.task).await.unwrap().unwrap();
    timeout(LIMIT, manager.drain(Duration::from_millis(200))).await.expect("the deadline");
    let fence = node.fence.clone();
    let free = move || {
        let addr = SocketAddr::from(([0u16; 8], zds::port::OUTBOUND));
        fence.run(&a, move || listen_tcp(&Listen { addr, backlog: 1, mark: None })).unwrap()
    };
    assert!(free().is_ok(), "the port is free again");
    assert!(node.handle.pods().await.is_none());
}
