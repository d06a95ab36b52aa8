//! Listeners of a real pod, and ztunnels that do as they are told.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netns::{Families, Fence, ListenAny, PodNetns, PortUse, listen_any};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zds::link::Link;
use zds::{ListenAt, Lookups, WorkloadInfo};

use super::*;
use crate::facts::PodUid;
use crate::reconcile::State;
use crate::testing::{FakeApi, FakeZtunnel, Node, PATIENCE, ScratchPod, eventually};
use crate::ztunnel_link::{self, Ack, Workload, ZtunnelLink, server};

const PORTS: [u16; 3] = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];

pub(super) fn uid() -> PodUid {
    PodUid("a".into())
}

pub(super) fn workload(lookups: Lookups) -> Workload {
    let info = WorkloadInfo {
        name: "web".into(),
        namespace: "shop".into(),
        service_account: "clerk".into(),
    };
    Workload { info, lookups }
}

/// One life of the agent, as far as ztunnel sees it.
pub(super) struct Agent {
    pub(super) link: ZtunnelLink,
    stop: CancellationToken,
}

impl Agent {
    pub(super) fn new() -> Self {
        let opener = Opener::new(Fence::new(1).unwrap());
        let link = ZtunnelLink::new(ztunnel_link::Metrics::default(), opener);
        Self { link, stop: CancellationToken::new() }
    }

    fn wire(&self) -> Link {
        let (ours, theirs) = Link::pair().unwrap();
        tokio::spawn(server::converse(ours, self.link.clone(), self.stop.clone()));
        theirs
    }

    pub(super) async fn ztunnel(&self) -> FakeZtunnel {
        self.resumed(Arc::default()).await
    }

    /// A ztunnel that is there since an earlier life of the agent.
    pub(super) async fn resumed(&self, told: Arc<Mutex<crate::testing::Told>>) -> FakeZtunnel {
        told.lock().unwrap().lines.clear();
        let ztunnel = FakeZtunnel::taking(self.wire(), told);
        snapshot(&ztunnel).await;
        ztunnel
    }

    /// One of before ztunnels took the sockets of name servers.
    pub(super) async fn taking_no_lookups(&self) -> FakeZtunnel {
        let ztunnel = FakeZtunnel::taking_no_lookups(self.wire(), Arc::default());
        snapshot(&ztunnel).await;
        ztunnel
    }

    pub(super) async fn old_fashioned(&self) -> FakeZtunnel {
        let ztunnel = FakeZtunnel::start(self.wire(), None);
        snapshot(&ztunnel).await;
        ztunnel
    }

    pub(super) async fn add(&self, pod: &ScratchPod) {
        self.add_with(pod, Lookups::Direct).await;
    }

    pub(super) async fn add_with(&self, pod: &ScratchPod, lookups: Lookups) {
        self.link.add(&uid(), workload(lookups), pod.netns()).await.unwrap();
    }

    pub(super) fn doorman(&self, hold: Duration) -> JoinHandle<()> {
        let (link, stop) = (self.link.clone(), self.stop.clone());
        let doorman = Doorman::new(hold, super::Metrics::default());
        tokio::spawn(doorman.run(self.link.changes(), move || link.unserved(), stop))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn snapshot(ztunnel: &FakeZtunnel) {
    eventually("the snapshot is there", || async {
        ztunnel.lines().iter().any(|line| line == "snapshot")
    })
    .await;
}

pub(super) fn dial(pod: &ScratchPod, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = pod.inside(move || TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// `None` while nothing has happened to the connection.
fn fate(mut stream: &TcpStream) -> Option<std::io::Result<usize>> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        fate => Some(fate),
    }
}

pub(super) async fn is_reset(stream: &TcpStream) {
    eventually("the connection is reset", || async {
        match fate(stream) {
            None => false,
            Some(Err(error)) => error.kind() == ErrorKind::ConnectionReset,
            Some(Ok(bytes)) => panic!("closed in order, or {bytes} bytes"),
        }
    })
    .await;
}

fn bind_shared(pod: &ScratchPod) -> std::io::Result<Vec<std::net::TcpListener>> {
    let listen = |port| {
        let (families, port_use) = (Families::All, PortUse::Shared);
        listen_any(&ListenAny { port, families, backlog: 8, mark: Some(0x539), port_use })
    };
    pod.inside(move || PORTS.into_iter().map(listen).collect())
}

#[tokio::test]
async fn a_pod_comes_with_listeners_that_every_ztunnel_shares() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let first = agent.ztunnel().await;
    agent.add(&pod).await;
    let inodes = first.inodes("a");
    assert_eq!(inodes.len(), 3);
    assert!(bind_shared(&pod).is_err(), "nobody else can have the ports");
    agent.add(&pod).await;
    assert_eq!(first.inodes("a"), inodes, "asked again, the same");

    let second = agent.ztunnel().await;
    assert_eq!(second.inodes("a"), inodes, "in the snapshot");
    drop(first);
    drop(second);
    let waiting = dial(&pod, zds::port::OUTBOUND).expect("the port stays ours");
    let third = agent.ztunnel().await;
    assert_eq!(third.inodes("a"), inodes);
    assert!(fate(&waiting).is_none(), "it waited for the next ztunnel");

    agent.link.del(&uid()).await.unwrap();
    assert_eq!(dial(&pod, zds::port::OUTBOUND).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_restarted_agent_gets_the_same_sockets_back() {
    let pod = ScratchPod::new();
    let (told, inodes) = {
        let agent = Agent::new();
        let ztunnel = agent.ztunnel().await;
        agent.add(&pod).await;
        (Arc::clone(&ztunnel.told), ztunnel.inodes("a"))
    };
    for netns in [Some(pod.netns()), None] {
        let agent = Agent::new();
        agent.link.restore(&uid(), workload(Lookups::Direct), netns);
        let ztunnel = agent.resumed(Arc::clone(&told)).await;
        let found = agent.link.netns(&uid()).map(|netns| netns.id());
        assert_eq!(found, Some(pod.netns().id()), "{:?}", ztunnel.lines());
        let next = agent.ztunnel().await;
        assert_eq!(next.inodes("a"), inodes, "handed on by the agent");
        assert_eq!(next.lines(), ["add a", "snapshot"]);
    }
}

#[tokio::test]
async fn only_the_pods_own_listeners_are_taken_back() {
    let (agent, pod, other) = (Agent::new(), ScratchPod::new(), ScratchPod::new());
    let told: Arc<Mutex<crate::testing::Told>> = Arc::default();
    let foreign = bind_shared(&other).unwrap().into_iter().zip(PORTS);
    let foreign = foreign.map(|(listener, port)| zds::GivenListener {
        at: ListenAt::any(port),
        fd: listener.into(),
    });
    told.lock().unwrap().holds.insert("a".into(), foreign.collect());
    agent.link.restore(&uid(), workload(Lookups::Direct), Some(pod.netns()));
    let liar = agent.resumed(told).await;
    assert_eq!(liar.lines(), ["add a", "snapshot"]);
    let next = agent.ztunnel().await;
    assert!(next.inodes("a").is_empty(), "nothing of another pod is handed on");
}

#[tokio::test]
async fn for_a_ztunnel_that_binds_its_own_the_agent_lets_go() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let old = agent.ztunnel().await;
    agent.add(&pod).await;
    let inodes = old.inodes("a");

    // A roll back: the old one still accepts, the new one can bind beside it.
    let new = agent.old_fashioned().await;
    assert!(new.serves("a") && new.inodes("a").is_empty());
    let own = bind_shared(&pod).expect("the ports are shared now");
    let other = ScratchPod::new();
    let direct = workload(Lookups::Direct);
    agent.link.add(&PodUid("b".into()), direct, other.netns()).await.unwrap();
    let port = |pod: &ScratchPod| pod.run("ss -Htln");
    assert_eq!(port(&other), "", "the agent opens none");

    // It goes away again: the one that is left gives back what it has.
    drop((new, own));
    eventually("the listeners are back", || async {
        old.lines().iter().filter(|line| *line == "add a").count() == 2
    })
    .await;
    let next = agent.ztunnel().await;
    assert_eq!(next.inodes("a"), inodes);

    drop((old, next));
    let alone = agent.old_fashioned().await;
    assert!(alone.serves("a"));
    assert_eq!(port(&pod), "", "nothing of ours is in its way");
}

#[tokio::test]
async fn a_port_that_is_taken_is_left_to_ztunnel() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let ztunnel = agent.ztunnel().await;
    let taken = bind_shared(&pod).unwrap();
    agent.add(&pod).await;
    assert!(ztunnel.serves("a") && ztunnel.inodes("a").is_empty());
    drop(taken);
    agent.add(&pod).await;
    assert_eq!(ztunnel.inodes("a").len(), 3);
}

#[tokio::test]
async fn a_new_sandbox_gets_new_listeners() {
    let (agent, pod, next) = (Agent::new(), ScratchPod::new(), ScratchPod::new());
    let ztunnel = agent.ztunnel().await;
    agent.add(&pod).await;
    let before = ztunnel.inodes("a");
    agent.add(&next).await;
    let after = ztunnel.inodes("a");
    assert!(after.len() == 3 && after.iter().all(|inode| !before.contains(inode)));
    assert_eq!(dial(&pod, zds::port::OUTBOUND).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(dial(&next, zds::port::OUTBOUND).is_ok());
}

#[tokio::test]
async fn when_the_hold_time_is_over_connections_are_reset_until_a_ztunnel_comes() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let doorman = agent.doorman(Duration::from_secs(1));
    let ztunnel = agent.ztunnel().await;
    agent.add(&pod).await;
    let early = dial(&pod, zds::port::OUTBOUND).unwrap();
    drop(ztunnel);
    let waiting = dial(&pod, zds::port::OUTBOUND).unwrap();
    is_reset(&early).await;
    is_reset(&waiting).await;
    is_reset(&dial(&pod, zds::port::OUTBOUND).expect("the port stays ours")).await;

    let next = agent.ztunnel().await;
    assert_eq!(next.inodes("a").len(), 3);
    assert_eq!(agent.link.ack(&uid()), Ack::Serving);
    eventually("a connection waits for ztunnel", || async {
        let stream = dial(&pod, zds::port::OUTBOUND).unwrap();
        let accepted = next.told.lock().unwrap().holds["a"][0].fd.try_clone().unwrap();
        let accepted = std::net::TcpListener::from(accepted).accept();
        accepted.is_ok() && fate(&stream).is_none()
    })
    .await;

    agent.link.del(&uid()).await.unwrap();
    agent.stop.cancel();
    tokio::time::timeout(PATIENCE, doorman).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_pod_that_leaves_without_a_ztunnel_leaves_no_port() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let _doorman = agent.doorman(Duration::ZERO);
    let ztunnel = agent.ztunnel().await;
    agent.add(&pod).await;
    drop(ztunnel);
    is_reset(&dial(&pod, zds::port::OUTBOUND).unwrap()).await;
    agent.link.del(&uid()).await.unwrap();
    eventually("the port is free", || async { dial(&pod, zds::port::OUTBOUND).is_err() }).await;
}

#[tokio::test]
async fn a_pod_that_the_only_ztunnel_refuses_does_not_hang_for_ever() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let _doorman = agent.doorman(Duration::ZERO);
    let ztunnel = agent.ztunnel().await;
    agent.add(&pod).await;
    let waiting = dial(&pod, zds::port::OUTBOUND).unwrap();
    drop(ztunnel);
    let refusing = FakeZtunnel::taking_but(agent.wire(), "a");
    snapshot(&refusing).await;
    is_reset(&waiting).await;
    is_reset(&dial(&pod, zds::port::OUTBOUND).unwrap()).await;
}

/// The netns of a test stays alive by its pod only.
#[test]
fn a_held_listener_tells_where_it_is() {
    let pod = ScratchPod::new();
    let netns: PodNetns = pod.netns();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opener = Opener::new(Fence::new(1).unwrap());
    let held = runtime.block_on(opener.open(&netns)).unwrap();
    assert_eq!(held.iter().map(|held| held.at().port).collect::<Vec<_>>(), PORTS);
    assert!(matches!(runtime.block_on(opener.open(&netns)), Err(OpenError::Taken(15001))));
}

/// A whole agent with a pod that is about to be captured.
pub(super) async fn node(folder: &std::path::Path) -> (Node, FakeApi, ScratchPod) {
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    let node = Node::start(folder, &api).await;
    (node, api, pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_last_from_capture_to_release_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, pod) = node(folder.path()).await;
    let ztunnel = node.taking_ztunnel(Arc::default()).await;
    node.call(plugin_api::Verb::Add, "web", &pod).await;
    api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    let inodes = ztunnel.inodes("uid-web");
    assert_eq!(inodes.len(), 3);

    let told = Arc::clone(&ztunnel.told);
    node.stop().await;
    drop(ztunnel);
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.taking_ztunnel(told).await;
    node.reaches("web", State::Captured).await;
    drop(ztunnel);
    let next = node.taking_ztunnel(Arc::default()).await;
    let handed_on = || async { next.inodes("uid-web") == inodes };
    eventually("the agent had them back and hands them on", handed_on).await;

    api.label("web", None);
    node.reaches("web", State::Outside).await;
    assert_eq!(pod.run("ss -Htln"), "", "nothing listens any more");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_are_lacking_are_opened_at_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, pod) = node(folder.path()).await;
    let ztunnel = node.taking_ztunnel(Arc::default()).await;
    let taken = bind_shared(&pod).unwrap();
    node.call(plugin_api::Verb::Add, "web", &pod).await;
    api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    assert!(ztunnel.serves("uid-web") && ztunnel.inodes("uid-web").is_empty());
    drop(taken);
    eventually("the agent opens them", || async { ztunnel.inodes("uid-web").len() == 3 }).await;
    node.stop().await;
}
