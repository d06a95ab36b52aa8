//! Random lives of real pods: real namespaces and rules, a ztunnel and an API that come and
//! go. The same idea as `model`, with the kernel's word for it.

use std::time::Duration;

use fastrand::Rng;
use plugin_api::{Outcome, Verb};

use super::{OnEscaped, Pace};
use crate::facts::PodUid;
use crate::testing::{FakeApi, FakeZtunnel, Node, ScratchPod, eventually};

/// Lives, and random events in each.
const LIVES: u64 = 200;
const EVENTS: usize = 12;
/// Lives that go on beside each other.
const BESIDE: u64 = 4;

const PACE: Pace = Pace {
    on_escaped: OnEscaped::Capture,
    withdraw_wait: Duration::from_millis(30),
    drain_deadline: Duration::from_millis(60),
    verify_interval: Duration::from_millis(200),
    compare_interval: Duration::from_secs(1),
};

/// A sandbox, with a name that no other one has had.
struct Sandbox {
    pod: ScratchPod,
    name: String,
}

struct Life {
    rng: Rng,
    folder: tempfile::TempDir,
    api: FakeApi,
    node: Option<Node>,
    ztunnel: Option<FakeZtunnel>,
    /// The pod that is there now, and whether its label wants it captured.
    sandbox: Option<Sandbox>,
    wanted: bool,
    serial: usize,
    story: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            folder: tempfile::tempdir().unwrap(),
            api: FakeApi::new(),
            node: None,
            ztunnel: None,
            sandbox: None,
            wanted: false,
            serial: 0,
            story: vec![format!("seed {seed}")],
        }
    }

    async fn something_happens(&mut self) {
        let number = self.rng.u8(..16);
        match number {
            0..3 => self.start_pod().await,
            3 => self.end_pod().await,
            4..8 => self.flip_label(),
            8 => self.restart_agent().await,
            9..11 => self.flip_ztunnel().await,
            11 => self.damage("nft flush ruleset"),
            12 => self.damage("ip rule del pref 13"),
            13 => {
                self.story.push("the API goes".into());
                self.api.set_down(true);
            }
            14 => {
                self.story.push("the API comes".into());
                self.api.set_down(false);
            }
            _ => {}
        }
        // Some time, so that the next event finds the agent at another step.
        tokio::time::sleep(Duration::from_millis(u64::from(self.rng.u8(..40)))).await;
    }

    async fn start_pod(&mut self) {
        let Some(node) = self.node.as_ref().filter(|_| self.sandbox.is_none()) else { return };
        self.serial += 1;
        let (name, pod) = (format!("web-{}", self.serial), ScratchPod::new());
        self.api.add_pod(&name, Some("10.9.0.5"));
        self.wanted = self.rng.bool();
        self.api.label(&name, self.wanted.then_some("ambient"));
        self.story.push(format!("ADD of {name}, wanted {}", self.wanted));
        let outcome = node.call(Verb::Add, &name, &pod).await;
        match &outcome {
            Outcome::Captured => assert!(is_redirected(&pod), "{:?}", self.story),
            Outcome::NotInMesh { .. } => {}
            // What runtimes and kubelets do then.
            _ => {
                self.story.push(format!("{outcome:?}"));
                node.call(Verb::Del, &name, &pod).await;
                self.api.delete_pod(&name);
                return;
            }
        }
        self.sandbox = Some(Sandbox { pod, name });
    }

    async fn end_pod(&mut self) {
        let Some(Sandbox { pod, name }) = self.sandbox.take() else { return };
        self.story.push(format!("{name} ends"));
        self.api.delete_pod(&name);
        match &self.node {
            Some(node) if self.rng.bool() => {
                assert_eq!(node.call(Verb::Del, &name, &pod).await, Outcome::Done);
            }
            // DEL never comes.
            _ => {}
        }
    }

    fn flip_label(&mut self) {
        let Some(Sandbox { name, .. }) = &self.sandbox else { return };
        self.wanted = !self.wanted;
        self.story.push(format!("{name} wanted {}", self.wanted));
        self.api.label(name, self.wanted.then_some("ambient"));
    }

    fn damage(&mut self, command: &str) {
        let Some(Sandbox { pod, .. }) = &self.sandbox else { return };
        // There may be nothing to damage.
        let (done, _) = pod.try_run(command);
        self.story.push(format!("{command}: {done}"));
    }

    async fn restart_agent(&mut self) {
        self.story.push("the agent restarts".into());
        self.ztunnel = None;
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
        self.node = Some(Node::start_at(self.folder.path(), &self.api, PACE).await);
    }

    async fn flip_ztunnel(&mut self) {
        if self.ztunnel.take().is_some() {
            self.story.push("ztunnel goes".into());
            return;
        }
        self.story.push("ztunnel comes".into());
        // Before its first lists the agent lets nobody in.
        self.api.set_down(false);
        if let Some(node) = &self.node {
            self.ztunnel = Some(node.ztunnel(None).await);
        }
    }

    /// Everything is there, and the kernel, the API and ztunnel say what was wanted.
    async fn comes_to_rest(&mut self) {
        self.story.push("peace".into());
        self.api.set_down(false);
        if self.ztunnel.is_none() {
            self.flip_ztunnel().await;
        }
        self.nobody_is_left().await;
        let (Some(Sandbox { pod, name }), Some(ztunnel)) = (&self.sandbox, &self.ztunnel) else {
            return;
        };
        let told = || self.api.annotation(name, "ambient.istio.io/redirection");
        let what = format!("rest, wanted {}, after {:?}", self.wanted, self.story);
        let uid = format!("uid-{name}");
        eventually(&what, || async {
            match self.wanted {
                true => {
                    let routed = pod.run("ip rule").contains("lookup 1337");
                    is_redirected(pod) && routed && ztunnel.serves(&uid) && told().is_some()
                }
                false => pod.traces().is_empty() && !ztunnel.serves(&uid) && told().is_none(),
            }
        })
        .await;
    }
}

impl Life {
    /// Nothing holds the namespace of a pod that has ended.
    async fn nobody_is_left(&self) {
        let (Some(node), Some(ztunnel)) = (&self.node, &self.ztunnel) else { return };
        let now = self.sandbox.as_ref().map(|sandbox| sandbox.name.as_str());
        for name in (1..=self.serial).map(|number| format!("web-{number}")) {
            if Some(name.as_str()) == now {
                continue;
            }
            let uid = PodUid(format!("uid-{name}"));
            eventually(&format!("{name} is let go of, after {:?}", self.story), || async {
                let watched = node.observer().known(&uid).is_some();
                !watched && node.state(&name).is_none() && !ztunnel.serves(&uid.0)
            })
            .await;
        }
    }
}

fn is_redirected(pod: &ScratchPod) -> bool {
    pod.run("nft list ruleset").contains("redirect to :15001")
}

async fn live(seed: u64) {
    let mut life = Life::new(seed);
    life.restart_agent().await;
    for _ in 0..EVENTS {
        life.something_happens().await;
    }
    life.comes_to_rest().await;
    life.ztunnel = None;
    if let Some(node) = life.node.take() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_kernel_has_what_was_wanted_in_the_end() {
    let lives = (0..BESIDE).map(|first| async move {
        for seed in (first..LIVES).step_by(usize::try_from(BESIDE).unwrap()) {
            live(seed).await;
        }
    });
    futures_util::future::join_all(lives).await;
}
