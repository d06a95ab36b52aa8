//! Wiring: who gets what, what starts after what, and the order in which all of it stops.

mod install;
mod node_state;
mod probes;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use netns::Fence;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Condition, Readiness};
use crate::config::Config;
use crate::install::Standing;
use crate::known_outside::KnownOutside;
use crate::kube::{KubeApi, Metrics as KubeMetrics};
use crate::listeners::{self, Doorman, Opener};
use crate::observe::Observer;
use crate::pod_netns::{Finder, Store};
use crate::reconcile::{Effects, Fact, Memory, Reconciler};
use crate::rules::{HostMetrics, HostProbes, Rules};
use crate::ztunnel_link::ZtunnelLink;
use crate::{plugin_server, reconcile, run_dir, ztunnel_link};
use probes::Probes;

/// Fence workers. Jobs inside are short: opening a socket, starting a process.
const FENCE_WORKERS: usize = 8;
/// Facts that may wait to be taken in.
const FACTS: usize = 1024;
/// What is left of the five seconds that a stop may take, for steps under way.
const LAST_STEPS: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Metrics {
    link: ztunnel_link::Metrics,
    kube: KubeMetrics,
    listeners: listeners::Metrics,
    reconcile: reconcile::Metrics,
    host: HostMetrics,
    plugin: plugin_server::Metrics,
    install: crate::install::Metrics,
}

impl Metrics {
    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.link.register(&mut registry);
        self.kube.register(&mut registry);
        self.listeners.register(&mut registry);
        self.reconcile.register(&mut registry);
        self.host.register(&mut registry);
        self.plugin.register(&mut registry);
        self.install.register(&mut registry);
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
            if let Err(error) = &acted {
                node_state::report_failure(&config, error).await;
            }
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
    let rules = build_rules(config, &fence).await?;
    let mut settings = config.enrollment.clone();
    let (source, counted) = (config.probe_source, metrics.host.clone());
    let probes = Probes::prepare(source, &settings.options, &rules, counted).await?;
    settings.options.probes.sources.clone_from(&probes.sources);
    let host = probes.host.clone();
    let effects =
        build_effects(config, metrics, fence, (rules, host.clone()), link.clone()).await?;
    let (api, standing) = (effects.api.clone(), effects.standing.clone());
    let reconciler =
        Reconciler::new(settings, config.pace, effects, metrics.reconcile.clone(), stop.clone());
    // Asked once only, so it was empty.
    let _ = admin.reconciler.set(reconciler.clone());
    probes.spawn(tasks, &reconciler, admin.readiness.clone(), stop);

    let ztunnels = ztunnel_link::Server::bind(&config.zds_socket)?;
    let plugin = plugin_server::Server::bind(
        &config.run_dir.plugin_socket(),
        reconciler.clone(),
        metrics.plugin.clone(),
    )?;
    tasks.spawn(plugin.run(stop.clone()));
    admin.readiness.fulfil(Condition::PluginSocket);
    // Only now: whom the conflist names must answer.
    spawn_install(config, metrics, tasks, (&api, &admin.readiness, standing), stop);
    spawn_watches(tasks, &api, &reconciler, stop);
    tasks.spawn(node_state::report(api.clone(), admin.readiness.clone(), stop.clone()));
    if let Some(taint) = config.startup_taint.clone() {
        tasks.spawn(remove_taint(api, taint, admin.readiness.clone(), stop.clone()));
    }

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

fn spawn_install(
    config: &Config,
    metrics: &Metrics,
    tasks: &mut JoinSet<()>,
    (api, readiness, standing): (&KubeApi, &Readiness, Standing),
    stop: &CancellationToken,
) {
    let Some(wanted) = config.install.clone() else {
        return readiness.fulfil(Condition::Installed);
    };
    let told = install::Told { api: api.clone(), readiness: readiness.clone(), standing };
    let record = config.run_dir.installed();
    install::spawn(tasks, wanted, record, metrics.install.clone(), told, stop);
}

async fn build_rules(config: &Config, fence: &Fence) -> anyhow::Result<Rules> {
    let rules = Rules::new(config.programs.clone(), fence.clone(), Handle::current());
    let proof = rules.self_test(&config.enrollment.options).await;
    proof.context("this node cannot carry the rules (CAP_NET_ADMIN and CAP_SYS_ADMIN needed)")?;
    Ok(rules)
}

async fn build_effects(
    config: &Config,
    metrics: &Metrics,
    fence: Fence,
    (rules, host): (Rules, HostProbes),
    link: ZtunnelLink,
) -> anyhow::Result<Effects> {
    let finder = Finder::new(fence.clone(), &config.places)?;
    let locator = finder.locator().clone();
    Ok(Effects {
        rules,
        host,
        link,
        observer: Observer::new(fence),
        known: KnownOutside::open(&config.run_dir.known_outside(), locator.boot()).await,
        locator,
        finder,
        standing: Standing::default(),
        store: Store::open(&config.run_dir.pods()).await?,
        memory: Memory::open(&config.run_dir.memory()).await,
        api: KubeApi::new(config.kubeconfig.as_deref(), config.node.clone(), metrics.kube.clone())
            .await?,
    })
}

fn spawn_watches(
    tasks: &mut JoinSet<()>,
    api: &KubeApi,
    reconciler: &Reconciler,
    stop: &CancellationToken,
) {
    let (facts, mut seen) = mpsc::channel::<Fact>(FACTS);
    let (pods, pods_stop, pods_facts) = (api.clone(), stop.clone(), facts.clone());
    tasks.spawn(async move { pods.watch_pods(pods_facts, pods_stop).await });
    let (namespaces, namespaces_stop) = (api.clone(), stop.clone());
    tasks.spawn(async move { namespaces.watch_namespaces(facts, namespaces_stop).await });
    let (events, events_stop) = (api.clone(), stop.clone());
    tasks.spawn(async move { events.write_events(events_stop).await });
    let reconciler = reconciler.clone();
    // Ends with the watches, which hold the other end.
    tasks.spawn(async move {
        while let Some(fact) = seen.recv().await {
            reconciler.observe(fact);
        }
    });
}

/// From then on a pod that belongs to the mesh can be let in at once.
async fn remove_taint(api: KubeApi, key: String, ready: Readiness, stop: CancellationToken) {
    if stop.run_until_cancelled(ready.ready()).await.is_some() {
        api.remove_taint(&key, stop).await;
    }
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
