//! An agent without a process: all rooms but config and main, in a temporary directory.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netns::{Fence, PodNetns};
use plugin_api::{Outcome, Reply, Request, VERSION, Verb};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::plugin_call::{plugin_call, read_reply};
use super::{FakeApi, FakeZtunnel, PATIENCE, ScratchPod, Told, eventually, options, programs};
use crate::enrollment::{Older, Settings};
use crate::facts::PodUid;
use crate::install::Standing;
use crate::known_outside::KnownOutside;
use crate::kube::{self, KubeApi};
use crate::listeners::{self, Doorman, Opener};
use crate::observe::Observer;
use crate::pod_netns::{Finder, Places, Store};
use crate::reconcile::{self, Effects, Memory, OnEscaped, Pace, Reconciler, State};
use crate::rules::{HostMetrics, HostProbes, Programs, Rules};
use crate::{plugin_server, ztunnel_link};

/// One life of an agent.
pub struct Node {
    pub api: FakeApi,
    pub reconciler: Reconciler,
    pub link: ztunnel_link::ZtunnelLink,
    pub host: HostProbes,
    pub registry: Registry,
    /// What an installer would have seen.
    pub standing: Standing,
    client: KubeApi,
    observer: Observer,
    folder: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Fast enough for tests, slow enough to be seen.
pub const PACE: Pace = Pace {
    withdraw_wait: Duration::from_secs(1),
    drain_deadline: Duration::from_secs(2),
    verify_interval: Duration::from_millis(500),
    compare_interval: Duration::from_secs(2),
    on_escaped: OnEscaped::Capture,
};

/// How long connections wait for a ztunnel.
pub const HOLD: Duration = Duration::from_secs(1);

/// What the rooms count, in one registry.
struct RoomMetrics {
    link: ztunnel_link::Metrics,
    reconcile: reconcile::Metrics,
    door: plugin_server::Metrics,
    kube: kube::Metrics,
}

impl RoomMetrics {
    fn registered(registry: &mut Registry) -> Self {
        let this = Self {
            link: ztunnel_link::Metrics::default(),
            reconcile: reconcile::Metrics::default(),
            door: plugin_server::Metrics::default(),
            kube: kube::Metrics::default(),
        };
        this.link.register(registry);
        this.reconcile.register(registry);
        this.door.register(registry);
        this.kube.register(registry);
        this
    }
}

impl Node {
    /// Starts an agent whose run directory is `folder`.
    pub async fn start(folder: &std::path::Path, api: &FakeApi) -> Self {
        Self::start_at(folder, api, PACE).await
    }

    /// Like [`Node::start`], at another pace.
    pub async fn start_at(folder: &std::path::Path, api: &FakeApi, pace: Pace) -> Self {
        Self::start_with(folder, api, pace, programs()).await
    }

    /// Like [`Node::start_at`], with other programs.
    pub async fn start_with(
        folder: &std::path::Path,
        api: &FakeApi,
        pace: Pace,
        programs: Programs,
    ) -> Self {
        let mut registry = Registry::default();
        let metrics = RoomMetrics::registered(&mut registry);
        let client = api.client(metrics.kube);
        let fence = Fence::new(4).unwrap();
        let link = ztunnel_link::ZtunnelLink::new(metrics.link, Opener::new(fence.clone()));
        let rules = Rules::new(programs, fence.clone(), Handle::current());
        // A namespace of its own stands for the node's.
        let place = PodNetns::scratch().unwrap();
        let host = HostProbes::new(&rules, place, HostMetrics::default());
        let places = Places {
            runtime_sockets: vec![folder.join("cri.sock")],
            processes: folder.join("proc"),
        };
        let finder = Finder::new(fence.clone(), &places).unwrap();
        let observer = Observer::new(fence.clone());
        let known = folder.join(plugin_api::KNOWN_FILE);
        let standing = Standing::default();
        let effects = Effects {
            rules,
            host: host.clone(),
            link: link.clone(),
            observer: observer.clone(),
            known: KnownOutside::open(&known, finder.locator().boot()).await,
            locator: finder.locator().clone(),
            finder,
            standing: standing.clone(),
            store: Store::open(&folder.join("pods.json")).await.unwrap(),
            memory: Memory::open(&folder.join("memory.json")).await,
            api: client.clone(),
        };
        let stop = CancellationToken::new();
        let reconciler =
            Reconciler::new(settings(), pace, effects, metrics.reconcile, stop.clone());
        let node = Self {
            api: api.clone(),
            reconciler,
            link,
            host,
            registry,
            standing,
            client,
            observer,
            folder: folder.to_owned(),
            stop,
            tasks: TaskTracker::new(),
        };
        node.open_doors(metrics.door);
        node
    }

    fn open_doors(&self, metrics: plugin_server::Metrics) {
        let plugin = self.folder.join("plugin.sock");
        let plugin = plugin_server::Server::bind(&plugin, self.reconciler.clone(), metrics);
        self.tasks.spawn(plugin.unwrap().run(self.stop.clone()));
        let (facts, mut seen) = mpsc::channel(64);
        let (client, stop, pods) = (self.client.clone(), self.stop.clone(), facts.clone());
        self.tasks.spawn(async move { client.watch_pods(pods, stop).await });
        let (client, stop) = (self.client.clone(), self.stop.clone());
        self.tasks.spawn(async move { client.watch_namespaces(facts, stop).await });
        let (client, stop) = (self.client.clone(), self.stop.clone());
        self.tasks.spawn(async move { client.write_events(stop).await });
        let reconciler = self.reconciler.clone();
        self.tasks.spawn(async move {
            while let Some(fact) = seen.recv().await {
                reconciler.observe(fact);
            }
        });
        let zds = ztunnel_link::Server::bind(&self.folder.join("ztunnel.sock")).unwrap();
        let (reconciler, link, stop) =
            (self.reconciler.clone(), self.link.clone(), self.stop.clone());
        self.tasks.spawn(self.host.clone().keep(self.stop.clone()));
        let host = self.host.clone();
        self.tasks.spawn(async move {
            if reconciler.start().await {
                host.all_known();
                let doorman = Doorman::new(HOLD, listeners::Metrics::default());
                let unserved = || link.unserved();
                let doorman = doorman.run(link.changes(), unserved, stop.clone());
                tokio::join!(zds.run(link.clone(), stop), doorman);
            }
        });
    }

    /// A ztunnel that has taken the snapshot.
    pub async fn ztunnel(&self, refuse: Option<&str>) -> FakeZtunnel {
        let path = self.folder.join("ztunnel.sock");
        let ztunnel = FakeZtunnel::connect(&path, refuse).await;
        eventually("ztunnel has the snapshot", || async { self.link.is_live() }).await;
        ztunnel
    }

    /// Like [`Node::ztunnel`], of one that takes listeners.
    pub async fn taking_ztunnel(&self, told: Arc<Mutex<Told>>) -> FakeZtunnel {
        let link = zds::link::Link::connect(&self.folder.join("ztunnel.sock")).await.unwrap();
        let ztunnel = FakeZtunnel::taking(link, told);
        eventually("ztunnel has the snapshot", || async { self.link.is_live() }).await;
        ztunnel
    }

    /// Ends this life; the pods stay as they are.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        let ends = async {
            self.tasks.wait().await;
            self.reconciler.finish().await;
        };
        tokio::time::timeout(PATIENCE, ends).await.expect("the agent ends");
    }

    /// What the plugin asks for pod `shop/<name>` in sandbox `c-<name>`.
    pub fn request(verb: Verb, name: &str, pod: &ScratchPod) -> Request {
        Request {
            version: VERSION,
            verb,
            namespace: "shop".into(),
            name: name.into(),
            uid: Some(format!("uid-{name}")),
            container_id: format!("c-{name}"),
            ifname: "eth0".into(),
            network: Some("lab".to_owned()),
            netns_path: Some(pod.path().display().to_string()),
            ips: vec![pod.ip],
        }
    }

    /// One call of the plugin for `shop/<name>`.
    pub async fn call(&self, verb: Verb, name: &str, pod: &ScratchPod) -> Outcome {
        let netns = (verb != Verb::Del).then(|| pod.netns());
        self.send(Self::request(verb, name, pod), netns).await
    }

    /// Sends a request as the plugin does.
    pub async fn send(&self, request: Request, netns: Option<PodNetns>) -> Outcome {
        let frame = plugin_api::encode(&request).unwrap();
        self.send_raw(frame, netns).await
    }

    /// Sends bytes to the plugin's socket.
    pub async fn send_raw(&self, frame: Vec<u8>, netns: Option<PodNetns>) -> Outcome {
        let socket = self.plugin_socket();
        blocking(move || plugin_call(&socket, &frame, netns.as_ref())).await
    }

    /// The reply to what was sent over `stream`.
    pub async fn read_reply(&self, stream: UnixStream) -> Outcome {
        blocking(move || read_reply(stream)).await
    }

    /// The watches over its captured pods.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Whether a ztunnel is connected and has the whole picture.
    pub fn is_live(&self) -> bool {
        self.link.is_live()
    }

    pub fn plugin_socket(&self) -> PathBuf {
        self.folder.join("plugin.sock")
    }

    pub fn state(&self, name: &str) -> Option<State> {
        let uid = PodUid(format!("uid-{name}"));
        self.reconciler.table().get(&uid).map(|pod| pod.state)
    }

    pub async fn reaches(&self, name: &str, state: State) {
        let what = format!("pod {name} is {}", state.name());
        eventually(&what, || async { self.state(name) == Some(state) }).await;
    }

    /// Has a captured pod compared once more with what it should be, and waits for it.
    pub async fn looks_again(&self, name: &str) {
        let looks = || self.metric_value("nodeagent_reconcile_events_total{type=\"verify\"}");
        let before = looks();
        self.api.annotate(name, "looks", &before.to_string());
        eventually("the pod is looked at", || async { looks() > before }).await;
    }

    /// The value of one metric; 0 where it was never counted.
    pub fn metric_value(&self, name: &str) -> f64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// One line of the metrics page.
    pub fn metric(&self, line: &str) -> bool {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page.lines().any(|found| found == line)
    }
}

/// Waits for a reply on a thread of its own.
async fn blocking(call: impl FnOnce() -> Reply + Send + 'static) -> Outcome {
    let (sender, reply) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(sender.send(call())));
    let reply = tokio::time::timeout(PATIENCE, reply).await.expect("a reply in time");
    let reply = reply.expect("a reply");
    assert_eq!(reply.version, VERSION);
    reply.outcome
}

fn settings() -> Settings {
    Settings {
        excluded_namespaces: BTreeSet::from(["kube-system".to_owned()]),
        selectors: None,
        options: options(),
        older: Older::Keep,
    }
}
