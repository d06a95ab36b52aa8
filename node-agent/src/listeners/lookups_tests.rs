//! The sockets of a real pod's name server, and ztunnels that take them or do not.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use netns::{Families, ListenLoopback, LoopbackSockets, PortUse, listen_loopback};
use zds::{GivenListener, ListenAt, Lookups};

use super::tests::{Agent, dial, is_reset, node, uid, workload};
use crate::facts::PodUid;
use crate::reconcile::State;
use crate::testing::{FakeZtunnel, PATIENCE, ScratchPod, eventually};
use crate::ztunnel_link::Ack;

/// `a.b`, type A, id 0x1234, recursion desired.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";
const FAILURE: &[u8] = b"\x12\x34\x81\x02\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";

/// The sockets of the proxy, and with those of the name server.
const PROXY: usize = 3;
const ALL: usize = 7;

/// An application of the pod that asks the name server.
fn ask(pod: &ScratchPod, server: ListenAt) -> UdpSocket {
    let v4 = server.kind == zds::ListenerKind::UdpLoopbackV4;
    let to = SocketAddr::new(
        if v4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() },
        server.port,
    );
    let socket = pod.inside(move || netns::dial_udp(to, None)).unwrap();
    socket.send(QUERY).unwrap();
    socket
}

async fn hears(socket: UdpSocket, what: &[u8]) {
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    let mut answer = [0; 512];
    let heard = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await;
    let length = heard.expect("an answer").unwrap();
    assert_eq!(&answer[..length], what);
}

/// What waits at this socket of a ztunnel.
fn waiting(ztunnel: &FakeZtunnel, at: ListenAt) -> Vec<Vec<u8>> {
    let told = ztunnel.told.lock().unwrap();
    let is_here = |given: &&GivenListener| given.at == at;
    let held = told.holds["a"].iter().find(is_here).unwrap().fd.try_clone().unwrap();
    let (socket, mut buffer) = (UdpSocket::from(held), [0; 512]);
    let read = || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(read).collect()
}

fn places(ztunnel: &FakeZtunnel) -> Vec<ListenAt> {
    let told = ztunnel.told.lock().unwrap();
    told.holds["a"].iter().map(|given| given.at).collect()
}

fn bind_as_ztunnel(pod: &ScratchPod) -> Option<Vec<LoopbackSockets>> {
    let listen = ListenLoopback {
        port: zds::port::DNS,
        families: Families::All,
        mark: Some(0x539),
        port_use: PortUse::Shared,
    };
    pod.inside(move || listen_loopback(&listen)).ok()
}

/// Which sockets of the pod are on the name server's port.
fn open(pod: &ScratchPod) -> usize {
    pod.run("ss -Htulna").lines().filter(|line| line.contains(":15053 ")).count()
}

#[tokio::test]
async fn a_lookup_waits_for_the_next_ztunnel() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let first = agent.ztunnel().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    assert_eq!(places(&first)[PROXY..], ListenAt::LOOKUPS);
    let inodes = first.inodes("a");
    assert!(bind_as_ztunnel(&pod).is_none(), "nobody else can have the port");

    let second = agent.ztunnel().await;
    assert_eq!(second.inodes("a"), inodes, "two ztunnels, one socket");
    drop((first, second));
    let [udp4, _, udp6, _] = ListenAt::LOOKUPS;
    let _asking = [udp4, udp6].map(|at| ask(&pod, at));
    let third = agent.ztunnel().await;
    assert_eq!(third.inodes("a"), inodes);
    for at in [udp4, udp6] {
        assert_eq!(waiting(&third, at), [QUERY], "{at}");
    }

    agent.link.del(&uid()).await.unwrap();
    assert_eq!(open(&pod), 0, "nothing is left in the pod but who asked");
}

#[tokio::test]
async fn without_a_redirect_there_is_no_name_server() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let ztunnel = agent.ztunnel().await;
    let told = || ztunnel.told.lock().unwrap().lookups["a"];
    for lookups in [Lookups::Direct, Lookups::Redirected, Lookups::Direct, Lookups::Redirected] {
        agent.add_with(&pod, lookups).await;
        assert_eq!(told(), lookups);
        let redirected = lookups == Lookups::Redirected;
        assert_eq!(ztunnel.inodes("a").len(), if redirected { ALL } else { PROXY });
        assert_eq!(open(&pod), if redirected { 4 } else { 0 }, "{lookups:?}");
    }
}

#[tokio::test]
async fn a_pod_without_ipv6_has_the_other_two() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let path = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    pod.inside(move || std::fs::write(path, "1")).unwrap();
    let ztunnel = agent.ztunnel().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    assert_eq!(places(&ztunnel)[PROXY..], ListenAt::LOOKUPS[..2]);
}

#[tokio::test]
async fn a_restarted_agent_gets_the_name_servers_sockets_back() {
    let pod = ScratchPod::new();
    let (told, inodes) = {
        let agent = Agent::new();
        let ztunnel = agent.ztunnel().await;
        agent.add_with(&pod, Lookups::Redirected).await;
        (Arc::clone(&ztunnel.told), ztunnel.inodes("a"))
    };
    for netns in [Some(pod.netns()), None] {
        let agent = Agent::new();
        agent.link.restore(&uid(), workload(Lookups::Redirected), netns);
        let _ztunnel = agent.resumed(Arc::clone(&told)).await;
        let next = agent.ztunnel().await;
        assert_eq!(next.inodes("a"), inodes, "handed on by the agent");
    }
}

#[tokio::test]
async fn only_the_pods_own_name_server_is_taken_back() {
    let (agent, pod, other) = (Agent::new(), ScratchPod::new(), ScratchPod::new());
    let told: Arc<std::sync::Mutex<crate::testing::Told>> = Arc::default();
    let LoopbackSockets { udp, tcp, .. } = bind_as_ztunnel(&other).unwrap().remove(0);
    let [udp4, tcp4, ..] = ListenAt::LOOKUPS;
    let foreign = [(udp4, udp.into()), (tcp4, tcp.into())];
    let foreign = foreign.map(|(at, fd)| GivenListener { at, fd });
    told.lock().unwrap().holds.insert("a".into(), foreign.into());
    agent.link.restore(&uid(), workload(Lookups::Redirected), Some(pod.netns()));
    let _liar = agent.resumed(told).await;
    let next = agent.ztunnel().await;
    assert!(next.inodes("a").is_empty(), "nothing of another pod is handed on");
}

/// As of a release before: it takes the proxy's listeners and binds the name server's.
#[tokio::test]
async fn a_ztunnel_that_binds_its_name_servers_can_be_upgraded_and_rolled_back() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let old = agent.taking_no_lookups().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    assert_eq!(old.inodes("a").len(), PROXY);
    assert_eq!(old.told.lock().unwrap().lookups["a"], Lookups::Unspecified, "nothing is said");
    let bound = bind_as_ztunnel(&pod).expect("the port is left to it");

    let new = agent.ztunnel().await;
    assert_eq!(new.inodes("a").len(), PROXY);
    agent.add_with(&pod, Lookups::Redirected).await;
    assert_eq!(new.inodes("a").len(), PROXY, "the old one still has the port");
    drop((old, bound));
    assert!(agent.link.lacks_listeners(&uid(), &pod.netns(), Lookups::Redirected));
    agent.add_with(&pod, Lookups::Redirected).await;
    assert_eq!(new.inodes("a").len(), ALL, "the agent opens them");
    assert!(!agent.link.lacks_listeners(&uid(), &pod.netns(), Lookups::Redirected));

    let back = agent.taking_no_lookups().await;
    assert_eq!(back.inodes("a").len(), PROXY);
    drop(new);
    eventually("the agent lets go", || async { open(&pod) == 0 }).await;
    assert!(bind_as_ztunnel(&pod).is_some());

    // The other way round: what a ztunnel had to bind is given back to who asks.
    let new = agent.ztunnel().await;
    let bound = bind_as_ztunnel(&pod).unwrap();
    let sockets = bound.into_iter().flat_map(|it| [it.udp.into(), it.tcp.into()]);
    let own = ListenAt::LOOKUPS.into_iter().zip(sockets);
    let own = own.map(|(at, fd)| GivenListener { at, fd });
    new.told.lock().unwrap().holds.get_mut("a").unwrap().extend(own);
    agent.add_with(&pod, Lookups::Redirected).await;
    assert!(!agent.link.lacks_listeners(&uid(), &pod.netns(), Lookups::Redirected));
    let next = agent.ztunnel().await;
    let sorted = |mut inodes: Vec<u64>| {
        inodes.sort_unstable();
        inodes
    };
    assert_eq!(sorted(next.inodes("a")), sorted(new.inodes("a")));
}

#[tokio::test]
async fn for_a_ztunnel_of_version_1_no_name_server_is_held() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let new = agent.ztunnel().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    let stock = agent.old_fashioned().await;
    assert!(stock.serves("a") && stock.inodes("a").is_empty());
    drop(new);
    eventually("the agent lets go", || async { open(&pod) == 0 }).await;
}

#[tokio::test]
async fn when_the_hold_time_is_over_lookups_fail_until_a_ztunnel_comes() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let _doorman = agent.doorman(Duration::from_secs(1));
    let ztunnel = agent.ztunnel().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    drop(ztunnel);
    let [udp4, tcp4, udp6, _] = ListenAt::LOOKUPS;
    for at in [udp4, udp6, udp4] {
        hears(ask(&pod, at), FAILURE).await;
    }
    is_reset(&dial(&pod, tcp4.port).expect("the port stays ours")).await;
    // What is no query is not answered, and in nobody's way.
    let rude = ask(&pod, udp4);
    rude.send(b"?").unwrap();
    hears(rude, FAILURE).await;

    let next = agent.ztunnel().await;
    eventually("a lookup waits for ztunnel", || async {
        let _asking = ask(&pod, udp4);
        waiting(&next, udp4).contains(&QUERY.to_vec())
    })
    .await;
}

#[tokio::test]
async fn a_refused_name_server_is_no_answer_either() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let _doorman = agent.doorman(Duration::ZERO);
    let ztunnel = agent.ztunnel().await;
    agent.add_with(&pod, Lookups::Redirected).await;
    drop(ztunnel);
    hears(ask(&pod, ListenAt::LOOKUPS[0]), FAILURE).await;
    agent.link.del(&uid()).await.unwrap();
    eventually("the port is free", || async {
        let asking = ask(&pod, ListenAt::LOOKUPS[0]);
        let gone = || asking.recv(&mut [0; 512]).err().map(|error| error.kind());
        gone() == Some(ErrorKind::ConnectionRefused)
    })
    .await;
}

/// An application has the port, say.
#[tokio::test]
async fn a_name_server_that_cannot_be_had_does_not_cost_the_pod_its_proxy() {
    let (agent, pod) = (Agent::new(), ScratchPod::new());
    let ztunnel = agent.ztunnel().await;
    agent.add(&pod).await;
    ztunnel.told.lock().unwrap().refuses = true;
    let redirected = agent.link.add(&uid(), workload(Lookups::Redirected), pod.netns()).await;
    redirected.unwrap_err();
    assert!(matches!(agent.link.ack(&uid()), Ack::Refused(_)));
    assert!(agent.link.unserved().is_empty(), "it accepts the pod's connections still");
    // In another sandbox it serves nothing yet.
    let next = ScratchPod::new();
    agent.link.add(&uid(), workload(Lookups::Direct), next.netns()).await.unwrap_err();
    assert_eq!(agent.link.unserved().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_come_and_go_with_the_pods_annotation_and_last_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, pod) = node(folder.path()).await;
    let ztunnel = node.taking_ztunnel(Arc::default()).await;
    node.call(plugin_api::Verb::Add, "web", &pod).await;
    let annotate = |value| api.annotate("web", "ambient.istio.io/dns-capture", value);
    let held = |ztunnel: &FakeZtunnel, count: usize| ztunnel.inodes("uid-web").len() == count;
    let redirects = || pod.run("nft list ruleset").contains("redirect to :15053");
    annotate("true");
    api.label("web", Some("ambient"));
    node.reaches("web", State::Captured).await;
    assert!(held(&ztunnel, ALL) && redirects());
    let inodes = ztunnel.inodes("uid-web");

    let told = Arc::clone(&ztunnel.told);
    node.stop().await;
    drop(ztunnel);
    let node = crate::testing::Node::start(folder.path(), &api).await;
    let ztunnel = node.taking_ztunnel(told).await;
    node.reaches("web", State::Captured).await;
    drop(ztunnel);
    let ztunnel = node.taking_ztunnel(Arc::default()).await;
    let handed_on = || async { ztunnel.inodes("uid-web") == inodes };
    eventually("the agent had them back and hands them on", handed_on).await;

    annotate("false");
    eventually("they are gone", || async { held(&ztunnel, PROXY) && !redirects() }).await;
    assert_eq!(open(&pod), 0);
    assert_eq!(ztunnel.inodes("uid-web")[..], inodes[..PROXY], "the proxy's stay");
    annotate("true");
    eventually("they are there again", || async { held(&ztunnel, ALL) && redirects() }).await;
    let link = node.link.clone();
    assert_eq!(link.lookups(&PodUid("uid-web".into())), Some(Lookups::Redirected));
    node.stop().await;
}
