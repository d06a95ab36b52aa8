//! What happens when a pod opens more connections than there are descriptors.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Ztunnel;
use super::node::{Agent, Outside, TestPod, echoes, eventually};

/// What it starts with, and what it may raise that to.
const LIMITS: (u32, u32) = (100, 256);

const MESH: &str = "workloads:
  - {uid: a, name: greedy, namespace: shop, workloadIps: [10.78.1.1]}
  - {uid: b, name: modest, namespace: shop, workloadIps: [10.78.2.1]}
";

/// A node with two pods and few descriptors.
struct Node {
    ztunnel: Ztunnel,
    log: PathBuf,
    greedy: TestPod,
    modest: TestPod,
    _agent: Agent,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("zds.sock"), folder.path().join("log"));
        let limits = format!("--nofile={}:{}", LIMITS.0, LIMITS.1);
        let settings = [
            ("NODE_NAME", "n1"),
            ("INPOD_UDS", socket.to_str().unwrap()),
            ("XDS_ADDRESS", ""),
            ("LOCAL_XDS", MESH),
            ("ZTUNNEL_WORKER_THREADS", "2"),
        ];
        let mut ztunnel = None;
        let agent = Agent::meet(&socket, || {
            let log = Stdio::from(File::create(&log).unwrap());
            ztunnel = Some(Ztunnel::start_under(&["prlimit", &limits], &settings, log));
        });
        let outside = Outside::new();
        let (greedy, modest) = (outside.pod("greedy", 1), outside.pod("modest", 2));
        agent.add(&greedy);
        agent.add(&modest);
        let ztunnel = ztunnel.unwrap();
        Self { ztunnel, log, greedy, modest, _agent: agent, _folder: folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The sum of a metric over its series.
    fn metric(&self, name: &str) -> f64 {
        let text = self.ztunnel.answer(15020, "GET /metrics");
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A connection of this pod, which must be served.
    fn served(&self, pod: &TestPod) -> TcpStream {
        pod.talk().unwrap_or_else(|| panic!("{} is not served: {}", pod.name, self.log()))
    }

    /// Changes what the process may have while it runs.
    fn limit(&self, soft: u32) {
        let (pid, limits) = (self.ztunnel.child.id(), format!("{soft}:{}", LIMITS.1));
        let words = ["--pid", &pid.to_string(), &format!("--nofile={limits}")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    }

    /// Ends it; what it logged.
    fn end(mut self) -> String {
        self.ztunnel.terminate();
        let (status, _) = self.ztunnel.ended();
        let log = self.log();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("ztunnel ends"), "{log}");
        log
    }
}

/// Opens far more connections than there are descriptors, all at once: those that are
/// served, and how many are not.
fn crowd(pod: &TestPod) -> (Vec<TcpStream>, usize) {
    let dialled: Vec<_> = (0..2 * LIMITS.1).map(|_| pod.dial()).collect();
    let all = dialled.len();
    let served: Vec<_> =
        dialled.into_iter().filter_map(|dialled| dialled.ok().filter(echoes)).collect();
    let closed = all - served.len();
    (served, closed)
}

#[test]
fn a_pod_that_takes_all_descriptors_harms_only_its_own_new_connections() {
    // The other ends are ours.
    netns::raise_descriptor_limit().unwrap();
    let (node, start) = (Node::start(), Instant::now());
    assert_eq!(node.metric("process_max_fds"), f64::from(LIMITS.1), "raised to the hard limit");
    assert!(node.log().contains("limit of descriptors\twas=100 now=256"), "{}", node.log());
    let early = node.served(&node.modest);

    let (served, closed) = crowd(&node.greedy);
    assert!(served.len() > 30, "{} connections of one pod", served.len());
    assert!(served.iter().all(echoes), "what was open goes on");
    assert!(echoes(&early), "and that of others");
    let late: Vec<_> = (0..3).map(|_| node.served(&node.modest)).collect();
    // Counted one for one: nothing was tried twice.
    assert_eq!(node.metric("istio_tcp_connections_failed_total"), closed as f64);
    assert!(node.metric("sluice_connections_refused_total") > 0.0);
    assert_eq!(node.metric("sluice_accepts_failed_total"), 0.0, "some are always left");
    assert!(node.metric("process_open_fds") < f64::from(LIMITS.1));

    drop(served);
    eventually("its connections are gone", || node.metric("sluice_connections_open") == 4.0);
    let again = node.served(&node.greedy);
    assert!(echoes(&again) && late.iter().all(echoes));
    drop((early, late, again));
    let log = node.end();
    let told: Vec<_> = log.lines().filter(|l| l.contains("out of file descriptors:")).collect();
    let most = 1 + start.elapsed().as_secs() / 10;
    assert!((1..=most).contains(&(told.len() as u64)), "one in ten seconds: {told:#?}");
    assert!(told[0].contains("pod=shop/greedy") && told[0].contains("LimitNOFILE"), "{told:#?}");
}

#[test]
fn without_any_descriptor_connections_wait_and_nothing_spins() {
    let node = Node::start();
    let early = node.served(&node.modest);
    let start = Instant::now();
    node.limit(0);
    let waiting: Vec<_> = (0..5).map(|_| node.greedy.dial().unwrap()).collect();
    eventually("the operator is told", || node.log().contains("out of file descriptors:"));
    assert!(echoes(&early), "what was open goes on");
    node.limit(LIMITS.1);
    assert!(waiting.iter().all(echoes), "whoever waited is served");
    let failed = node.metric("sluice_accepts_failed_total");
    // From 10 ms to 1 s the waits double seven times, shortened by a fifth at most.
    let most = 8.0 + start.elapsed().as_secs_f64() / 0.8;
    assert!(failed >= 1.0 && failed <= most, "{failed} attempts, at most {most}");
    assert_eq!(node.metric("sluice_connections_refused_total"), 0.0);
    drop((early, waiting));
    let told = node.end().matches("out of file descriptors:").count();
    assert!(told <= 3, "{told} lines");
}
