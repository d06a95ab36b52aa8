//! A run on a cluster that is made for it: real programs on this machine, the chart installed
//! as a user installs it, the same scenarios as on any cluster, and all of it removed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use lab::cluster::harness::{Cluster, ClusterOptions, Primary, Tools};

use crate::cluster::{ClusterRun, run_on_cluster};
use crate::cluster_commands::{FamilyArg, UpArgs};
use crate::report::{Outcome, Report};

/// The namespace that the chart goes to.
const NAMESPACE: &str = "sluice-system";
/// What must be ready before anything is judged.
const PARTS: [&str; 3] =
    ["deployment/sluice-control", "daemonset/sluice-node-agent", "daemonset/sluice-ztunnel"];
/// How long the parts may take to get ready.
const READY: &str = "180s";
/// Deadline of a command of the chart's tools.
const COMMAND: Duration = Duration::from_secs(240);

/// Which cluster to make, and what to install.
#[derive(Debug, Args)]
pub(crate) struct HarnessArgs {
    /// Make a real cluster on this machine with this primary CNI, install the chart, run there,
    /// and remove it: bridge, flannel, calico, …
    #[arg(long, conflicts_with = "kubeconfig", requires_all = ["tools", "image_archive"])]
    cni: Option<Primary>,
    /// Its number of nodes.
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// Address families of its pods, services and nodes.
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    family: FamilyArg,
    /// The folder of its programs, as `scripts/cluster-tools` prints it.
    #[arg(long, env = "SLUICE_CLUSTER_TOOLS")]
    tools: Option<PathBuf>,
    /// The image, as `scripts/image` makes it.
    #[arg(long)]
    image_archive: Option<PathBuf>,
    /// The chart.
    #[arg(long, default_value = "deploy/helm/sluice")]
    chart: PathBuf,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
}

/// A cluster to be made.
pub(crate) struct Harness {
    up: UpArgs,
    image_archive: PathBuf,
    chart: PathBuf,
    afterwards: Afterwards,
}

/// What becomes of the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Keep,
    Remove,
}

impl HarnessArgs {
    /// `None` when no cluster is to be made.
    pub(crate) fn harness(self) -> Option<Harness> {
        let (cni, tools) = (self.cni?, self.tools?);
        let (nodes, family) = (self.nodes, self.family);
        let name = format!("run-{:x}", std::process::id());
        Some(Harness {
            up: UpArgs { name, cni, nodes, family, tools },
            image_archive: self.image_archive?,
            chart: self.chart,
            afterwards: if self.keep { Afterwards::Keep } else { Afterwards::Remove },
        })
    }
}

impl Harness {
    /// Makes the cluster, runs, and removes it. `run` says everything but how to reach it.
    ///
    /// # Errors
    /// When the cluster or the chart does not come up, or the run was interrupted.
    pub(crate) async fn run(&self, mut run: ClusterRun) -> anyhow::Result<Report> {
        let options = self.up.options()?;
        println!("starting a cluster with {}", options.primary);
        let cluster = self.up.start(&options).await?;
        run.kubeconfig = cluster.kubeconfig();
        run.cni.get_or_insert_with(|| options.primary.described(&options.tools));
        let own = options.program.display();
        let reboot = format!("{own} cluster reboot \"$NODE\" --name {}", options.name);
        run.reboot.get_or_insert(reboot);
        if self.afterwards == Afterwards::Remove {
            // The cluster goes anyway, so what its mesh leaves behind can be judged before.
            let helm = options.tools.built("helm", "helm")?;
            let command =
                format!("{} uninstall sluice --namespace {NAMESPACE} --timeout 5m", helm.display());
            run.uninstall.get_or_insert(command);
        }
        let found = match self.install(&cluster, &options).await {
            Ok(()) => run_on_cluster(run).await,
            Err(error) => Err(error.context("install the chart")),
        };
        if self.afterwards == Afterwards::Keep {
            println!("the cluster stays: export KUBECONFIG={}", cluster.kubeconfig().display());
            return found;
        }
        let left = cluster.down();
        let mut found = found?;
        found.results.push(Outcome::of(
            "cluster/harness-leaves-nothing",
            "the machines' processes, mounts and control groups are gone",
            (!left.is_empty()).then(|| left.join("; ")),
        ));
        Ok(found)
    }

    /// As docs/kubernetes.md says it.
    async fn install(&self, cluster: &Cluster, options: &ClusterOptions) -> anyhow::Result<()> {
        cluster.import(&self.image_archive, options.patience).await?;
        let chart = self.chart.display().to_string();
        let mut words = vec!["install", "sluice", &chart, "--namespace", NAMESPACE];
        words.extend(["--create-namespace"]);
        let values = [
            "image.repository=sluice.test/sluice",
            "image.tag=dev",
            "image.pullPolicy=Never",
            // One that works where nobody resolves names.
            "control.service.clusterIP=10.96.0.50",
        ];
        let own = options.primary.chart_values();
        for value in values.iter().chain(own) {
            words.extend(["--set", value]);
        }
        helm(cluster, &options.tools, &words).await?;
        for part in PARTS {
            wait_for(cluster, options, part).await?;
        }
        Ok(())
    }
}

async fn wait_for(cluster: &Cluster, options: &ClusterOptions, part: &str) -> anyhow::Result<()> {
    let timeout = format!("--timeout={READY}");
    let words = ["--namespace", NAMESPACE, "rollout", "status", part, &timeout];
    let ran = cluster.kubectl(&options.tools, &words, Vec::new(), COMMAND).await?;
    if ran.ok() {
        return Ok(());
    }
    let words = ["--namespace", NAMESPACE, "get", "pods,events", "--output=wide"];
    let seen = cluster.kubectl(&options.tools, &words, Vec::new(), COMMAND).await?;
    bail!("{part} does not get ready: {}\n{}", ran.stderr.trim(), seen.stdout);
}

async fn helm(cluster: &Cluster, tools: &Tools, words: &[&str]) -> anyhow::Result<()> {
    let program = tools.built("helm", "helm")?;
    let ran = cluster.as_administrator(&program, words, Vec::new(), COMMAND).await;
    let ran = ran.context("run helm")?;
    if !ran.ok() {
        bail!("helm refuses: {}", ran.stderr.trim());
    }
    Ok(())
}
