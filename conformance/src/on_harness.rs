//! A run on a cluster that is made for it: real programs on this machine, the chart installed
//! as a user installs it, the same scenarios as on any cluster, and all of it removed.

use std::path::PathBuf;

use clap::Args;
use lab::cluster::harness::{Cluster, ClusterOptions, Primary};

use crate::cluster::{ClusterRun, run_on_cluster};
use crate::cluster_commands::{FamilyArg, UpArgs};
use crate::helm::Helm;
use crate::report::{Outcome, Report};
use crate::witness::{self, Rest, Witness, Witnessed};

/// The namespace that the chart goes to.
const NAMESPACE: &str = "sluice-system";
/// What must be ready before anything is judged.
const PARTS: [&str; 3] =
    ["deployment/sluice-control", "daemonset/sluice-node-agent", "daemonset/sluice-ztunnel"];
/// Values of the chart on every cluster made here.
const VALUES: [&str; 4] = [
    "image.repository=sluice.test/sluice",
    "image.tag=dev",
    "image.pullPolicy=Never",
    // Nodes are not there yet when they join: one scenario has a node join.
    "nodeAgent.startupTaint=sluice.dev/agent-not-ready",
];

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
    /// Install parts of Istio in the place of ours, and unless told otherwise run what shows how
    /// the others get along with them.
    #[arg(long, value_enum, requires = "cni")]
    witness: Option<Witness>,
    /// The image of ztunnel alone, which Istio's chart starts, for the witness `istio`.
    #[arg(long, required_if_eq("witness", "istio"))]
    ztunnel_archive: Option<PathBuf>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
}

/// A cluster to be made.
pub(crate) struct Harness {
    up: UpArgs,
    image_archive: PathBuf,
    chart: PathBuf,
    witness: Option<Witness>,
    ztunnel_archive: Option<PathBuf>,
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
        let pod_groups = self.witness.map(Witness::pod_groups).unwrap_or_default();
        let name = format!("run-{:x}", std::process::id());
        Some(Harness {
            up: UpArgs { name, cni, nodes, family, tools, pod_groups },
            image_archive: self.image_archive?,
            chart: self.chart,
            witness: self.witness,
            ztunnel_archive: self.ztunnel_archive,
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
        let witnessed = self.witnessed(&options)?;
        if let (Some(witness), true) = (self.witness, run.only.is_empty()) {
            run.only = witness::scenarios(witness);
        }
        println!("starting a cluster with {}", options.primary);
        let cluster = self.up.start(&options).await?;
        run.kubeconfig = cluster.kubeconfig();
        run.cni.get_or_insert_with(|| options.described());
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
        let found = found.map(|found| Report { witnessed, ..found });
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

    /// Who is a witness; known before anything is made.
    fn witnessed(&self, options: &ClusterOptions) -> anyhow::Result<Option<Witnessed>> {
        let Some(witness) = self.witness else { return Ok(None) };
        Ok(Some(Witnessed { witness, version: witness::version(&options.tools)? }))
    }

    async fn install(&self, cluster: &Cluster, options: &ClusterOptions) -> anyhow::Result<()> {
        cluster.import(&self.image_archive, options.patience).await?;
        let helm = Helm { cluster, tools: &options.tools, patience: options.patience };
        let Some(witness) = self.witness else {
            let all = Rest { values: Vec::new(), words: &[], ready: PARTS.to_vec() };
            return self.install_chart(&helm, options, all).await;
        };
        let ztunnel = self.ztunnel_archive.as_deref();
        if let Some(rest) = witness::install(witness, &helm, ztunnel).await? {
            self.install_chart(&helm, options, rest).await?;
        }
        witness::settle(witness, &helm).await
    }

    /// As docs/kubernetes.md says it.
    async fn install_chart(
        &self,
        helm: &Helm<'_>,
        options: &ClusterOptions,
        Rest { values: more, words, ready }: Rest,
    ) -> anyhow::Result<()> {
        // One that works where nobody resolves names.
        let control = format!("control.service.clusterIP={}", options.spare_service_address());
        let mut values = VALUES.to_vec();
        values.push(&control);
        values.extend(options.primary.chart_values());
        values.extend(more.iter().map(String::as_str));
        let chart = self.chart.display().to_string();
        helm.install("sluice", &chart, NAMESPACE, &values, words).await?;
        for part in ready {
            helm.wait_for(NAMESPACE, part).await?;
        }
        Ok(())
    }
}
