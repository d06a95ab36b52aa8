//! Wiring: who gets what, what starts after what, and the order in which all of it stops.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use netns::{Fence, PodNetns};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Condition, Readiness};
use crate::config::Config;
use crate::kube::KubeApi;
use crate::listeners::{self, Doorman, Opener};
use crate::observe::Observer;
use crate::pod_netns::{Finder, Store};
use crate::reconcile::{Effects, Fact, Reconciler};
use crate::rules::{HostMetrics, HostProbes, ProbeSource, Rules};
use crate::ztunnel_link::ZtunnelLink;
use crate::{plugin_server, reconcile, run_dir, ztunnel_link};

/// Fence workers. Jobs inside are short: opening a socket, starting a process.
const FENCE_WORKERS: usize = 8;
/// Facts that may wait to be taken in.
const FACTS: usize = 1024;
/// What is left of the five seconds that a stop may take, for steps under way.
const LAST_STEPS: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Metrics {
    link: ztunnel_link::Metrics,
    listeners: listeners::Metrics,
    reconcile: reconcile::Metrics,
    host: HostMetrics,
    plugin: plugin_server::Metrics,
}

impl Metrics {
    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.link.register(&mut registry);
        self.listeners.register(&mut registry);
        self.reconcile.register(&mut registry);
        self.host.register(&mut registry);
        self.plugin.register(&mut registry);
        registry
    }
}

/// Runs the agent until `stop`. Rules stay in the pods: an agent that is away lets
/// nothing out in clear text.
///
/// # Errors
/// What keeps the agent from its work for good, in words for the operator.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let admin = Admin {
        readiness: Readiness::default(),
        registry: Arc::new(metrics.registry()),
        reconciler: Arc::new(OnceLock::new()),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(admin.clone().run(config.admin, stop.clone()));

    // Nothing on the node is touched before the lock is held.
    let result = match run_dir::take(&config.run_dir, &stop).await {
        Ok(Some(lock)) => {
            admin.readiness.fulfil(Condition::Lock);
            let acted = act(&config, &metrics, &admin, &mut tasks, &stop).await;
            stop.cancel();
            finish(&mut tasks, &admin).await;
            drop(lock);
            return acted;
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    stop.cancel();
    finish(&mut tasks, &admin).await;
    result
}

async fn act(
    config: &Config,
    metrics: &Metrics,
    admin: &Admin,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let fence = Fence::new(FENCE_WORKERS).context("start the fence")?;
    let link = ZtunnelLink::new(metrics.link.clone(), Opener::new(fence.clone()));
    let effects = build_effects(config, fence, link.clone(), metrics).await?;
    let (api, host) = (effects.api.clone(), effects.host.clone());
    spawn_probes(tasks, config, &host, admin, stop);
    let reconciler = Reconciler::new(
        config.enrollment.clone(),
        config.pace,
        effects,
        metrics.reconcile.clone(),
        stop.clone(),
    );
    // Asked once only, so it was empty.
    let _ = admin.reconciler.set(reconciler.clone());

    let ztunnels = ztunnel_link::Server::bind(&config.zds_socket)?;
    let plugin = plugin_server::Server::bind(
        &config.run_dir.plugin_socket(),
        reconciler.clone(),
        metrics.plugin.clone(),
    )?;
    tasks.spawn(plugin.run(stop.clone()));
    admin.readiness.fulfil(Condition::PluginSocket);
    spawn_watches(tasks, api, &reconciler, stop);

    // What ztunnel does not find in its snapshot it drops: the snapshot waits for the
    // first lists and for the pods that were captured before this process.
    if reconciler.start().await {
        host.all_known();
        admin.readiness.fulfil(Condition::Kube);
        tasks.spawn(report_ztunnel(link.clone(), admin.readiness.clone(), stop.clone()));
        let doorman = Doorman::new(config.listener_hold, metrics.listeners.clone());
        let (changes, unserved) = (link.changes(), link.clone());
        tasks.spawn(doorman.run(changes, move || unserved.unserved(), stop.clone()));
        tasks.spawn(ztunnels.run(link, stop.clone()));
    }
    tracing::info!(node = config.node, "node agent runs");
    stop.cancelled().await;
    Ok(())
}

async fn build_effects(
    config: &Config,
    fence: Fence,
    link: ZtunnelLink,
    metrics: &Metrics,
) -> anyhow::Result<Effects> {
    let rules = Rules::new(config.programs.clone(), fence.clone(), Handle::current());
    let proof = rules.self_test(&config.enrollment.options).await;
    proof.context("this node cannot carry the rules (CAP_NET_ADMIN and CAP_SYS_ADMIN needed)")?;
    let host = match config.probe_source {
        ProbeSource::Marker => {
            let node = PodNetns::current().context("open the node's network namespace")?;
            HostProbes::new(&rules, node, metrics.host.clone())
        }
        ProbeSource::Off => HostProbes::off(),
    };
    let finder = Finder::new(fence.clone(), &config.places)?;
    Ok(Effects {
        rules,
        host,
        link,
        observer: Observer::new(fence),
        locator: finder.locator().clone(),
        finder,
        store: Store::open(&config.run_dir.pods()).await?,
        api: KubeApi::new(config.kubeconfig.as_deref(), config.node.clone()).await?,
    })
}

/// The host's part of probes. Nothing waits for it: pods are captured also on a node where
/// probes do not work.
fn spawn_probes(
    tasks: &mut JoinSet<()>,
    config: &Config,
    host: &HostProbes,
    admin: &Admin,
    stop: &CancellationToken,
) {
    tasks.spawn(host.clone().keep(stop.clone()));
    tasks.spawn(host.clone().test(config.enrollment.options.clone(), stop.clone()));
    let (mut troubles, readiness, stop) = (host.troubles(), admin.readiness.clone(), stop.clone());
    tasks.spawn(async move {
        loop {
            let known: Vec<_> = troubles.borrow_and_update().values().cloned().collect();
            readiness.remark("probes", &known.join("; "));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = troubles.changed() => if changed.is_err() { return },
            }
        }
    });
}

fn spawn_watches(
    tasks: &mut JoinSet<()>,
    api: KubeApi,
    reconciler: &Reconciler,
    stop: &CancellationToken,
) {
    let (facts, mut seen) = mpsc::channel::<Fact>(FACTS);
    let (pods, pods_stop, pods_facts) = (api.clone(), stop.clone(), facts.clone());
    tasks.spawn(async move { pods.watch_pods(pods_facts, pods_stop).await });
    let namespaces_stop = stop.clone();
    tasks.spawn(async move { api.watch_namespaces(facts, namespaces_stop).await });
    let reconciler = reconciler.clone();
    // Ends with the watches, which hold the other end.
    tasks.spawn(async move {
        while let Some(fact) = seen.recv().await {
            reconciler.observe(fact);
        }
    });
}

async fn report_ztunnel(link: ZtunnelLink, readiness: Readiness, stop: CancellationToken) {
    let mut changes = link.changes();
    loop {
        if link.is_live() {
            readiness.fulfil(Condition::Ztunnel);
        } else {
            readiness.miss(Condition::Ztunnel);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Doors first (they take back what is under way), then the pods' tasks.
async fn finish(tasks: &mut JoinSet<()>, admin: &Admin) {
    let last_steps = async {
        while tasks.join_next().await.is_some() {}
        if let Some(reconciler) = admin.reconciler.get() {
            reconciler.finish().await;
        }
    };
    if tokio::time::timeout(LAST_STEPS, last_steps).await.is_err() {
        tracing::warn!("steps under way did not end in time; the next start looks after them");
        tasks.abort_all();
    }
}
