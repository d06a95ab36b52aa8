//! What the command line offers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use lab::Subject;

use crate::cluster::{ClusterRun, Restarts, Room, run_on_cluster};
use crate::cluster_commands::ClusterCommand;
use crate::demo::{Afterwards, Demo};
use crate::list;
use crate::on_harness::HarnessArgs;
use crate::pod_app::App;
use crate::report::matrix::Others;
use crate::report::{self, Report, Sink, Source};
use crate::suite::Suite;
use crate::witness;

/// Proves the behaviours of a mesh: in network namespaces of this machine, or on a cluster.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios, in namespaces of this machine or on a cluster; exits with 1 when one
    /// fails.
    Run(Box<Run>),
    /// List the scenarios.
    List {
        /// Which of the behaviours are covered, at which level, and which are not.
        #[arg(long)]
        behaviours: bool,
    },
    /// Render results into a file, between its markers.
    Matrix {
        /// Reports that `run --report json=FILE` has written, a column each.
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// The file.
        #[arg(long)]
        into: PathBuf,
        /// Keep the columns of other clusters and versions that it has already.
        #[arg(long)]
        beside: bool,
    },
    /// Render what witnesses said into a file, between its markers.
    Witnesses {
        /// Reports that `run --witness WHO --report json=FILE` has written.
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// The file.
        #[arg(long)]
        into: PathBuf,
    },
    /// What runs inside of test pods.
    #[command(subcommand)]
    App(App),
    /// Real clusters on this machine, of real Kubernetes programs.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Parts of clusters start themselves with it.
    #[command(name = lab::cluster::harness::PART, hide = true)]
    ClusterPart {
        /// Which part, and its settings.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Tell the story of one label, step by step, with what was observed.
    Demo {
        /// Leave everything running until Ctrl-C.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        subject: SubjectArgs,
    },
}

/// What to run, and what to write about it.
#[derive(Debug, Args)]
struct Run {
    /// Only scenarios whose id contains one of these texts.
    #[arg(long)]
    only: Vec<String>,
    /// Where the evidence of failures goes.
    #[arg(long, default_value = "conformance-evidence")]
    evidence: PathBuf,
    /// Write a report: junit=FILE, json=FILE or markdown=FILE. May be given several times.
    #[arg(long)]
    report: Vec<Sink>,
    /// Where the results come from, for the matrix.
    #[arg(long, value_enum, default_value_t = Source::Hand)]
    source: Source,
    /// Seconds that anything observable may take in namespaces before a scenario fails.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    patience: u64,
    /// Judge what is installed on this cluster, instead of binaries in namespaces.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    harness: HarnessArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// How to test a cluster.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// The image of the test pods.
    #[arg(long, default_value = "sluice.test/sluice:dev")]
    image: String,
    /// Stay in this namespace, which exists, instead of making others; what needs more is
    /// skipped and says so.
    #[arg(long)]
    namespace: Option<String>,
    /// What to call the primary CNI plugin in reports, with its version.
    #[arg(long)]
    cni_name: Option<String>,
    /// Also run what ends the mesh's own pods for a while, or does harm to a node; whoever uses
    /// the cluster notices.
    #[arg(long)]
    restarts: bool,
    /// At the end, remove the mesh by this command, for example "helm -n sluice-system
    /// uninstall sluice --wait", and judge what it leaves.
    #[arg(long, value_name = "COMMAND")]
    including_uninstall: Option<String>,
    /// Before that, cut a node's power and start it again by this line of shell, which finds the
    /// node's name in NODE.
    #[arg(long, value_name = "COMMAND")]
    including_reboot: Option<String>,
}

/// The implementation to judge.
#[derive(Debug, Args)]
struct SubjectArgs {
    /// Folder with the binaries `node-agent`, `ztunnel` and `sluice-cni`; by default the
    /// folder of this program.
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Another node agent.
    #[arg(long)]
    node_agent: Option<PathBuf>,
    /// Another ztunnel.
    #[arg(long)]
    ztunnel: Option<PathBuf>,
}

impl SubjectArgs {
    fn resolve(self) -> anyhow::Result<Subject> {
        let folder = match self.binaries {
            Some(folder) => folder,
            None => own_folder()?,
        };
        let subject = Subject {
            node_agent: self.node_agent.unwrap_or_else(|| folder.join("node-agent")),
            ztunnel: self.ztunnel.unwrap_or_else(|| folder.join("ztunnel")),
            cni_plugin_dir: folder.clone(),
        };
        for binary in [&subject.node_agent, &subject.ztunnel, &folder.join("sluice-cni")] {
            if !binary.is_file() {
                bail!("{} does not exist; build it with `cargo build`", binary.display());
            }
        }
        Ok(subject)
    }
}

impl Arguments {
    /// The words of a cluster's part, which has to begin before there are threads.
    pub(crate) fn cluster_part(&self) -> Option<&[String]> {
        match &self.command {
            Command::ClusterPart { words } => Some(words),
            _ => None,
        }
    }

    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(run) => Box::pin(run.run()).await,
            Command::List { behaviours } => {
                let lines = if behaviours { list::behaviours() } else { list::scenarios() };
                Ok(list::print(&lines)?)
            }
            Command::Matrix { results, into, beside } => {
                let others = if beside { Others::Kept } else { Others::Replaced };
                report::matrix::write(&results, &into, others)
            }
            Command::Witnesses { results, into } => witness::record::write(&results, &into),
            Command::App(app) => app.run().await,
            Command::Cluster(command) => command.run().await,
            Command::ClusterPart { .. } => bail!("parts are started before the runtime"),
            Command::Demo { keep, subject } => {
                let afterwards = if keep { Afterwards::Keep } else { Afterwards::TearDown };
                Box::pin(Demo::new(subject.resolve()?, afterwards).run()).await
            }
        }
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<()> {
        let ClusterArgs { image, cni_name: cni, restarts, namespace, .. } = self.cluster;
        let room = namespace.map_or(Room::Own, Room::Given);
        let (uninstall, reboot) = (self.cluster.including_uninstall, self.cluster.including_reboot);
        let restarts = if restarts { Restarts::Allowed } else { Restarts::Refused };
        let (only, evidence, source) = (self.only, self.evidence, self.source);
        let on = |kubeconfig| {
            let (only, evidence) = (only.clone(), evidence.clone());
            ClusterRun {
                kubeconfig,
                image,
                only,
                evidence,
                cni,
                room,
                restarts,
                uninstall,
                reboot,
                source,
            }
        };
        let found = match (self.harness.harness(), self.kubeconfig) {
            (Some(harness), _) => harness.run(on(PathBuf::new())).await?,
            (None, Some(kubeconfig)) => run_on_cluster(on(kubeconfig)).await?,
            (None, None) => {
                let subject = self.subject.resolve()?;
                let patience = Duration::from_secs(self.patience);
                Suite { subject, only, evidence, patience, source }.run().await?
            }
        };
        for sink in &self.report {
            sink.write(&found)?;
        }
        conclude(&found)
    }
}

/// Scenarios failed, which the last line has said already.
#[derive(Debug, thiserror::Error)]
#[error("scenarios failed")]
pub(crate) struct Failed;

/// The last line, and what the exit code says.
fn conclude(report: &Report) -> anyhow::Result<()> {
    if report.results.is_empty() {
        bail!("no scenario was run");
    }
    let tally = report.tally();
    println!("{tally}");
    if tally.failed > 0 {
        return Err(Failed.into());
    }
    Ok(())
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find this program's own folder")?;
    program.parent().map(Path::to_owned).context("this program has no folder")
}
