//! The manager against an agent made here, over a real socket and in real namespaces.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use netns::{Fence, Listen, listen_tcp};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use zds::link::Listener;
use zds::{
    AddWorkload, DelWorkload, FEATURE_LISTENERS, FEATURE_LOOKUPS, KeepWorkload, ListenAt, Lookups,
    Returned, SnapshotSent, WorkloadInfo, WorkloadRequest, workload_request::Payload,
};

use super::*;
use crate::identity::{CaClient, CaSettings, Certificates, ControlChannel, Token};
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;
use crate::tls::{ControlSettings, RootSource};
use crate::worker::Workers;
use crate::workloads::{Handover, PodState};

const LIMIT: Duration = Duration::from_secs(20);

/// The agent, the ztunnel under test, and a fence to look into pods.
struct Node {
    agent: Listener,
    fence: Fence,
    readiness: Readiness,
    handle: Handle,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Manager>,
    workers: Workers,
    _folder: TempDir,
}

impl Node {
    fn start() -> Self {
        Self::with(Handover::Agent)
    }

    fn with(handover: Handover) -> Self {
        Self::with_settings(handover, proxy::Settings::default())
    }

    fn with_settings(handover: Handover, proxies: proxy::Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ztunnel.sock");
        let agent = Listener::bind(&socket).unwrap();
        let fence = Fence::new(2).unwrap();
        let readiness = Readiness::default();
        let retry_every = Duration::from_millis(50);
        let settings = Settings { retry_every, handover, ..Settings::new(socket) };
        let metrics = Metrics::register(&mut Registry::default());
        let workers = Workers::start(std::num::NonZeroUsize::MIN).unwrap();
        let context = context(fence.clone(), workers.clone(), proxies);
        let (manager, handle) =
            Manager::new(settings, context, metrics.clone(), readiness.clone()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { manager.run(&stop).await }
        });
        Self { agent, fence, readiness, handle, metrics, stop, task, workers, _folder: folder }
    }

    /// A connection that has said hello.
    async fn accept(&mut self) -> Agent {
        let (agent, hello) = self.accept_any().await;
        assert_eq!(hello, b"\x08\x01\xc0\x3e\x03", "version 1, takes listeners and lookups");
        agent
    }

    /// A connection and its hello.
    async fn accept_any(&mut self) -> (Agent, Vec<u8>) {
        let link = timeout(LIMIT, self.agent.accept()).await.expect("a connection").unwrap();
        let agent = Agent { link };
        let hello = agent.recv().await.bytes;
        (agent, hello)
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

    /// The listeners of a pod as an agent opens them.
    fn open(&self, netns: &PodNetns) -> Vec<TcpListener> {
        PORTS.map(|port| self.take_port(netns, port)).into()
    }

    /// Connects to a port of the pod and waits for the end of the connection: what the
    /// ztunnel under test cannot judge, it resets at once.
    async fn is_served(&self, netns: &PodNetns, port: u16) {
        match self.dial(netns, port) {
            Ok(stream) => served(stream).await,
            // Accepted and ended before we could look.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }

    fn dial(&self, netns: &PodNetns, port: u16) -> io::Result<TcpStream> {
        self.fence.run(netns, loopback_up).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        self.fence.run(netns, move || TcpStream::connect_timeout(&to, LIMIT)).unwrap()
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

const PORTS: [u16; 3] = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];

#[expect(clippy::disallowed_methods, reason = "tests set up pods with the system's tools")]
fn loopback_up() {
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
}

/// Waits until somebody has accepted the connection and ended it.
async fn served(stream: TcpStream) {
    let ended = tokio::task::spawn(async move {
        stream.set_nonblocking(true).unwrap();
        let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
    });
    timeout(LIMIT, ended).await.expect("nobody took the connection").unwrap();
}

fn inode(listener: &impl AsFd) -> u64 {
    netns::inspect_listener(listener).unwrap().inode
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
        let returned = self.ask_back(0, payload, fds).await?;
        assert!(returned.is_empty(), "an agent of version 1 gets no descriptor: {returned:?}");
        Ok(())
    }

    /// Sends a request of an agent with these features and returns the answer.
    async fn ask_back(
        &self,
        features: u32,
        payload: Payload,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Returned, String> {
        let bytes = zds::encode(&WorkloadRequest { features, payload: Some(payload) }).unwrap();
        self.link.send(&bytes, fds).await.unwrap();
        let packet = self.recv().await;
        zds::decode_response(&packet.bytes, packet.fds).unwrap()
    }

    async fn add(&self, uid: &str, netns: &PodNetns) -> Result<(), String> {
        self.ask(add(uid), &[netns.as_fd()]).await
    }

    async fn keep(&self, uid: &str) -> Result<(), String> {
        self.ask(Payload::Keep(KeepWorkload { uid: uid.to_owned() }), &[]).await
    }

    /// With listeners, as an agent that holds them sends it.
    async fn give(&self, uid: &str, netns: &PodNetns, held: &[TcpListener]) -> Result<(), String> {
        let Payload::Add(mut add) = add(uid) else { unreachable!() };
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        add.listeners = held.iter().map(|held| ListenAt::any(port(held)).entry()).collect();
        let sockets = held.iter().map(AsFd::as_fd);
        let fds: Vec<_> = [netns.as_fd()].into_iter().chain(sockets).collect();
        self.ask(Payload::Add(add), &fds).await
    }

    /// As an agent that was restarted and knows where the pod is.
    async fn reclaim(&self, uid: &str, netns: &PodNetns) -> Result<Returned, String> {
        self.ask_back(FEATURE_LISTENERS, add(uid), &[netns.as_fd()]).await
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
    let uid = uid.to_owned();
    Payload::Add(AddWorkload { uid, workload_info, ..AddWorkload::default() })
}

/// With a CA that nobody answers for: a pod is served without a certificate, it only
/// cannot speak to anybody yet.
fn context(fence: Fence, workers: Workers, settings: proxy::Settings) -> Arc<ProxyContext> {
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
        workers,
        settings,
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

    assert_eq!(node.metrics.unattended.get(), 0);

    // The agent is replaced; it has no descriptor of "a" and does not know "b".
    drop(agent);
    node.until("kept, and seen to be", |node| node.metrics.unattended.get() == 2).await;
    let agent = node.accept().await;
    assert!(node.listens(&a, zds::port::OUTBOUND) && node.listens(&b, zds::port::OUTBOUND));
    agent.keep("a").await.unwrap();
    agent.snapshot_sent().await.unwrap();
    assert!(node.listens(&a, zds::port::OUTBOUND));
    node.until("b is gone", |node| !node.listens(&b, zds::port::OUTBOUND)).await;
    node.until("a is attended", |node| node.metrics.unattended.get() == 0).await;

    agent.del("a").await.unwrap();
    agent.del("never seen").await.unwrap();
    node.until("a is gone", |node| !node.listens(&a, zds::port::OUTBOUND)).await;
}

/// Agents wait 5 s for an answer, and then begin with the snapshot again.
#[tokio::test]
async fn pods_that_are_slow_to_stop_do_not_add_up() {
    let mut node = Node::start();
    let pods: Vec<_> = (0..12).map(|_| PodNetns::scratch().unwrap()).collect();
    let agent = node.accept().await;
    for (number, pod) in pods.iter().enumerate() {
        agent.add(&number.to_string(), pod).await.unwrap();
    }
    agent.snapshot_sent().await.unwrap();
    drop(agent);
    let agent = node.accept().await;
    // None of them lets go as long as their worker is busy.
    let (free, busy) = std::sync::mpsc::channel::<()>();
    node.workers.all()[0].handle().spawn(async move {
        let _ = busy.recv();
    });
    agent.snapshot_sent().await.expect("within the patience of one of them");
    drop(free);
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

#[tokio::test]
async fn given_listeners_are_served_and_survive_the_end() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let held = node.open(&a);
    let waiting = node.dial(&a, zds::port::OUTBOUND).unwrap();
    let agent = node.accept().await;
    agent.give("a", &a, &held).await.unwrap();
    served(waiting).await;
    agent.snapshot_sent().await.unwrap();
    agent.give("a", &a, &held).await.expect("the same again");
    node.is_served(&a, zds::port::INBOUND_PLAIN).await;

    node.stop.cancel();
    let manager = timeout(LIMIT, node.task).await.unwrap().unwrap();
    timeout(LIMIT, manager.drain(Duration::from_millis(200))).await.expect("the deadline");
    // Nobody accepts, and yet nobody is turned away.
    let to = SocketAddr::from(([127, 0, 0, 1], zds::port::OUTBOUND));
    let fence = node.fence.clone();
    let late = fence.run(&a, move || TcpStream::connect_timeout(&to, LIMIT)).unwrap().unwrap();
    late.set_nonblocking(true).unwrap();
    let nothing = std::io::Read::read(&mut &late, &mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "it waits");
    assert!(held[0].accept().is_ok(), "for whoever takes the listener next");
}

#[tokio::test]
async fn a_restarted_agent_gets_the_same_sockets_back() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let held = node.open(&a);
    let inodes: Vec<u64> = held.iter().map(inode).collect();
    let agent = node.accept().await;
    agent.give("a", &a, &held).await.unwrap();
    agent.snapshot_sent().await.unwrap();
    drop((agent, held));

    let agent = node.accept().await;
    let keep = Payload::Keep(KeepWorkload { uid: "a".to_owned() });
    for returned in [
        agent.ask_back(FEATURE_LISTENERS, keep, &[]).await.unwrap(),
        agent.reclaim("a", &a).await.unwrap(),
    ] {
        assert_eq!(PodNetns::from_fd(returned.netns.unwrap()).unwrap().id(), a.id());
        let places: Vec<_> = returned.listeners.iter().map(|given| given.at).collect();
        assert_eq!(places, PORTS.map(ListenAt::any));
        let found: Vec<u64> = returned.listeners.iter().map(|given| inode(&given.fd)).collect();
        assert_eq!(found, inodes);
    }
    agent.keep("a").await.expect("an agent of version 1 is told nothing more");
    agent.snapshot_sent().await.unwrap();
    agent.del("a").await.unwrap();
    node.until("every copy is closed", |node| !node.listens(&a, zds::port::OUTBOUND)).await;
}

/// A stock agent, then one that takes listeners: nothing is bound anew.
#[tokio::test]
async fn listeners_that_ztunnel_bound_are_handed_to_an_agent_that_asks() {
    let mut node = Node::start();
    let (a, b) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let agent = node.accept().await;
    agent.add("a", &a).await.unwrap();
    let shares = |node: &Node, netns: &PodNetns| {
        node.fence.run(netns, || bind_shared(zds::port::OUTBOUND).is_ok()).unwrap()
    };
    assert!(shares(&node, &a), "the next ztunnel of a stock agent must be able to bind");
    agent.snapshot_sent().await.unwrap();
    drop(agent);

    let agent = node.accept().await;
    let returned = agent.reclaim("a", &a).await.unwrap();
    let held: Vec<_> =
        returned.listeners.into_iter().map(|given| TcpListener::from(given.fd)).collect();
    agent.give("a", &a, &held).await.expect("what it serves on already");
    let bound = agent.reclaim("b", &b).await.unwrap();
    assert_eq!(bound.listeners.len(), 3);
    assert!(!shares(&node, &b), "who can be handed over needs nobody beside it");
    agent.snapshot_sent().await.unwrap();
    node.is_served(&a, zds::port::OUTBOUND).await;
}

/// What a ztunnel does while an older one that bound its own listeners is still there.
#[tokio::test]
async fn a_port_of_an_older_ztunnel_is_shared_and_handed_over() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let older = node.fence.run(&a, || PORTS.map(|port| bind_shared(port).unwrap())).unwrap();
    let agent = node.accept().await;
    let returned = agent.reclaim("a", &a).await.unwrap();
    let own: Vec<_> = returned.listeners.iter().map(|given| inode(&given.fd)).collect();
    assert_eq!(own.len(), 3);
    assert!(older.iter().all(|older| !own.contains(&inode(older))));
    agent.snapshot_sent().await.unwrap();
    drop(older);
    node.is_served(&a, zds::port::OUTBOUND).await;
}

#[tokio::test]
async fn listeners_that_come_later_are_served_too() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let agent = node.accept().await;
    agent.add("a", &a).await.unwrap();
    let others = node.fence.run(&a, || PORTS.map(|port| bind_shared(port).unwrap())).unwrap();
    let others = Vec::from(others);
    let inodes: Vec<_> = others.iter().map(inode).collect();
    agent.give("a", &a, &others).await.unwrap();
    let returned = agent.reclaim("a", &a).await.unwrap();
    let found: Vec<_> = returned.listeners.iter().map(|given| inode(&given.fd)).collect();
    assert_eq!(found, inodes, "the agent's are the ones to hand on");
    // The kernel spreads connections over both sockets of the port.
    for _ in 0..16 {
        node.is_served(&a, zds::port::OUTBOUND).await;
    }
}

#[tokio::test]
async fn descriptors_that_are_no_listeners_of_the_pod_are_refused() {
    let mut node = Node::start();
    let (a, other) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let agent = node.accept().await;
    let held = node.open(&a);
    let foreign = node.open(&other);
    let refusal = agent.give("a", &a, &foreign).await.unwrap_err();
    assert!(refusal.contains("another network namespace"), "{refusal}");
    let refusal = agent.give("a", &a, &held[..2]).await.unwrap_err();
    assert!(refusal.contains("not tcp *:15008"), "{refusal}");
    let Payload::Add(mut swapped) = add("a") else { unreachable!() };
    swapped.listeners = PORTS.map(|port| ListenAt::any(port).entry()).into();
    let fds = [a.as_fd(), held[1].as_fd(), held[0].as_fd(), held[2].as_fd()];
    let refusal = agent.ask(Payload::Add(swapped), &fds).await.unwrap_err();
    assert!(refusal.contains("is one of [::]:15006"), "{refusal}");
    agent.give("a", &a, &held).await.expect("one bad add hurts nothing else");
    agent.snapshot_sent().await.unwrap();
}

#[tokio::test]
async fn a_ztunnel_that_binds_its_own_says_so() {
    let mut node = Node::with(Handover::Own);
    let agent = node.accept_any().await;
    assert_eq!(agent.1, b"\x08\x01", "version 1 and nothing else");
    let a = PodNetns::scratch().unwrap();
    agent.0.add("a", &a).await.unwrap();
    assert!(node.fence.run(&a, || bind_shared(zds::port::OUTBOUND).is_ok()).unwrap());
}

fn bind_shared(port: u16) -> std::io::Result<TcpListener> {
    let families = netns::Families::All;
    let port_use = netns::PortUse::Shared;
    netns::listen_any(&netns::ListenAny { port, families, backlog: 8, mark: Some(0x539), port_use })
}

/// An add that says what becomes of the pod's lookups, with the sockets of its name server.
fn add_with_lookups(uid: &str, lookups: Lookups, held: &[GivenSocket]) -> Payload {
    let Payload::Add(add) = add(uid) else { unreachable!() };
    let listeners = held.iter().map(|(at, _)| at.entry()).collect();
    Payload::Add(AddWorkload { lookups: lookups.into(), listeners, ..add })
}

type GivenSocket = (ListenAt, std::os::fd::OwnedFd);

impl Node {
    /// The sockets of a pod's name server as an agent opens them.
    fn open_lookups(&self, netns: &PodNetns) -> Vec<GivenSocket> {
        self.fence.run(netns, loopback_up).unwrap();
        let open = || {
            netns::listen_loopback(&netns::ListenLoopback {
                port: zds::port::DNS,
                families: netns::Families::All,
                mark: Some(0x539),
                port_use: netns::PortUse::Alone,
            })
        };
        let sockets = self.fence.run(netns, open).unwrap().unwrap();
        let sockets = sockets.into_iter().flat_map(|it| [it.udp.into(), it.tcp.into()]);
        ListenAt::LOOKUPS.into_iter().zip(sockets).collect()
    }
}

fn places(returned: &Returned) -> Vec<ListenAt> {
    returned.listeners.iter().map(|given| given.at).collect()
}

fn inodes_of(sockets: &[GivenSocket]) -> Vec<u64> {
    let inode = |(at, fd): &GivenSocket| match at.carries() {
        zds::Carries::Connections => netns::inspect_listener(fd).unwrap().inode,
        zds::Carries::Datagrams => netns::inspect_datagrams(fd).unwrap().inode,
    };
    sockets.iter().map(inode).collect()
}

#[tokio::test]
async fn a_name_servers_sockets_come_with_the_pod_and_go_back_to_who_asks() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let held = node.open_lookups(&a);
    let agent = node.accept().await;
    let fds: Vec<_> =
        [a.as_fd()].into_iter().chain(held.iter().map(|(_, fd)| fd.as_fd())).collect();
    let payload = add_with_lookups("a", Lookups::Redirected, &held);
    // It asks for what it does not bring.
    let returned = agent.ask_back(FEATURE_LISTENERS, payload.clone(), &fds).await.unwrap();
    assert_eq!(places(&returned), PORTS.map(ListenAt::any), "only what was asked for");
    agent.ask(payload, &fds).await.expect("the same again");
    agent.snapshot_sent().await.unwrap();
    let inodes = inodes_of(&held);
    drop((agent, held));

    let agent = node.accept().await;
    let keep = || Payload::Keep(KeepWorkload { uid: "a".to_owned() });
    let returned = agent.ask_back(FEATURE_LOOKUPS, keep(), &[]).await.unwrap();
    assert_eq!(places(&returned), ListenAt::LOOKUPS);
    let back: Vec<_> = returned.listeners.into_iter().map(|given| (given.at, given.fd)).collect();
    assert_eq!(inodes_of(&back), inodes, "the very same");
    let all = FEATURE_LISTENERS | FEATURE_LOOKUPS;
    let returned = agent.ask_back(all, keep(), &[]).await.unwrap();
    let proxy = PORTS.map(ListenAt::any);
    assert_eq!(places(&returned), [&proxy[..], &ListenAt::LOOKUPS].concat());
    drop((back, returned));
    agent.snapshot_sent().await.unwrap();

    let direct = add_with_lookups("a", Lookups::Direct, &[]);
    agent.ask(direct, &[a.as_fd()]).await.unwrap();
    node.until("the name server is gone", |node| !node.listens(&a, zds::port::DNS)).await;
    assert!(node.listens(&a, zds::port::OUTBOUND));
    let bound = add_with_lookups("a", Lookups::Redirected, &[]);
    let returned = agent.ask_back(FEATURE_LOOKUPS, bound, &[a.as_fd()]).await.unwrap();
    assert_eq!(places(&returned), ListenAt::LOOKUPS, "what ztunnel had to bind");
}

/// As of a release before: it knows nothing of lookups, and says so.
#[tokio::test]
async fn an_agent_that_says_nothing_of_lookups_is_given_no_name_server() {
    let mut node = Node::start();
    let a = PodNetns::scratch().unwrap();
    let agent = node.accept().await;
    let returned = agent.reclaim("a", &a).await.unwrap();
    assert_eq!(places(&returned), PORTS.map(ListenAt::any));
    assert!(node.listens(&a, zds::port::DNS), "it is there all the same");
}

#[tokio::test]
async fn a_name_server_that_is_none_is_refused() {
    let mut node = Node::start();
    let (a, other) = (PodNetns::scratch().unwrap(), PodNetns::scratch().unwrap());
    let agent = node.accept().await;
    let foreign = node.open_lookups(&other);
    let held = node.open_lookups(&a);
    let [udp4, tcp4, udp6, tcp6] = held.try_into().unwrap();
    let swapped = vec![(udp4.0, udp6.1), (tcp4.0, tcp6.1)];
    let half = vec![udp4];
    let listener = vec![(ListenAt::LOOKUPS[0], tcp4.1)];
    for (sockets, reason) in [
        (foreign, "another network namespace"),
        (swapped, "udp 127.0.0.1:15053 is one of [::1]:15053"),
        (half, "not tcp 127.0.0.1:15053"),
        (listener, "no UDP socket"),
    ] {
        let fds: Vec<_> =
            [a.as_fd()].into_iter().chain(sockets.iter().map(|(_, fd)| fd.as_fd())).collect();
        let payload = add_with_lookups("a", Lookups::Redirected, &sockets);
        let refusal = agent.ask(payload, &fds).await.unwrap_err();
        assert!(refusal.contains(reason), "{refusal}");
    }
    agent.add("a", &a).await.expect("one bad add hurts nothing else");
}

#[tokio::test]
async fn a_ztunnel_without_name_servers_does_not_take_their_sockets() {
    let mut settings = proxy::Settings::default();
    settings.dns.mode = crate::dns::Mode::Off;
    let mut node = Node::with_settings(Handover::Agent, settings);
    let (_agent, hello) = node.accept_any().await;
    assert_eq!(hello, b"\x08\x01\xc0\x3e\x01", "the proxy's only");
}
