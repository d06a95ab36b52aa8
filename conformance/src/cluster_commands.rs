//! The commands about real clusters: up, down, status, a shell on a machine.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use lab::Family;
use lab::cluster::harness::{Cluster, ClusterOptions, PodGroups, Primary, Tools};

use crate::ending::Ending;
use crate::list;

/// How long each step of a start may take. Two busy processors take a tenth of it.
const PATIENCE: Duration = Duration::from_secs(240);

/// What can be done with clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start a cluster and wait until its nodes are ready.
    Up(UpArgs),
    /// End a cluster and remove everything of it.
    Down {
        /// Its name.
        #[arg(default_value = "sluice")]
        name: String,
    },
    /// List the clusters of this host.
    Status,
    /// Print the path of the kubeconfig, for `export KUBECONFIG=...`.
    Kubeconfig {
        /// Its name.
        #[arg(default_value = "sluice")]
        name: String,
    },
    /// Cut a node's power and start it again: its processes and network are gone at once, its
    /// disk stays. Does not wait until it is ready.
    Reboot {
        /// `node1`, …
        node: String,
        /// The cluster's name.
        #[arg(long, default_value = "sluice")]
        name: String,
    },
    /// Import an image (an OCI archive) into every node.
    Import {
        /// The archive.
        archive: PathBuf,
        /// The cluster's name.
        #[arg(long, default_value = "sluice")]
        name: String,
    },
    /// Run a command on a machine, by default a shell.
    Shell {
        /// `control-plane`, `node1`, …
        machine: String,
        /// The cluster's name.
        #[arg(long, default_value = "sluice")]
        name: String,
        /// The command.
        #[arg(last = true)]
        command: Vec<String>,
    },
}

/// What a new cluster is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    /// Its name.
    #[arg(long, default_value = "sluice")]
    pub name: String,
    /// Its primary CNI: bridge, flannel, …
    #[arg(long, default_value = "flannel")]
    pub cni: Primary,
    /// Number of nodes.
    #[arg(long, default_value_t = 2)]
    pub nodes: u8,
    /// Address families of pods, services and nodes.
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    pub family: FamilyArg,
    /// The folder of the cluster's programs, as `scripts/cluster-tools` prints it.
    #[arg(long, env = "SLUICE_CLUSTER_TOOLS")]
    pub tools: PathBuf,
    /// What others' agents may want otherwise.
    #[arg(skip)]
    pub pod_groups: PodGroups,
}

/// [`Family`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FamilyArg {
    V4,
    V6,
    Dual,
}

impl From<FamilyArg> for Family {
    fn from(arg: FamilyArg) -> Self {
        match arg {
            FamilyArg::V4 => Self::V4,
            FamilyArg::V6 => Self::V6,
            FamilyArg::Dual => Self::Dual,
        }
    }
}

impl UpArgs {
    pub(crate) fn options(&self) -> anyhow::Result<ClusterOptions> {
        Ok(ClusterOptions {
            name: self.name.clone(),
            primary: self.cni,
            nodes: self.nodes,
            family: self.family.into(),
            pod_groups: self.pod_groups,
            tools: Tools::new(&self.tools),
            program: own_program()?,
            patience: PATIENCE,
        })
    }
}

impl UpArgs {
    /// Starts the cluster; when asked to end before it is up, nothing of it is left.
    pub(crate) async fn start(&self, options: &ClusterOptions) -> anyhow::Result<Cluster> {
        let mut ending = Ending::watch().context("watch for signals")?;
        let started = tokio::select! {
            started = Cluster::up(options) => started,
            why = ending.asked() => {
                let left = Cluster::open(&options.name).map(Cluster::down).unwrap_or_default();
                bail!("{why}; the cluster was removed{}", told(&left));
            }
        };
        started.context("the cluster does not come up")
    }
}

impl ClusterCommand {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up(args) => up(&args).await,
            Self::Down { name } => down(&name),
            Self::Status => status(),
            Self::Kubeconfig { name } => {
                println!("{}", Cluster::open(&name)?.kubeconfig().display());
                Ok(())
            }
            Self::Reboot { node, name } => {
                let mut cluster = Cluster::open(&name)?;
                cluster.cut_power(&node)?;
                Ok(cluster.power_on(&node, own_program()?, PATIENCE).await?)
            }
            Self::Import { archive, name } => {
                Ok(Cluster::open(&name)?.import(&archive, PATIENCE).await?)
            }
            Self::Shell { machine, name, command } => shell(&name, &machine, &command),
        }
    }
}

fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find this program")
}

async fn up(args: &UpArgs) -> anyhow::Result<()> {
    let options = args.options()?;
    let cluster = args.start(&options).await?;
    println!("cluster {} is up: {} nodes, {}", cluster.name(), options.nodes, cluster.primary());
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn down(name: &str) -> anyhow::Result<()> {
    let left = Cluster::open(name)?.down();
    if !left.is_empty() {
        bail!("cluster {name} is ended, but left behind{}", told(&left));
    }
    println!("cluster {name} is gone");
    Ok(())
}

fn told(left: &[String]) -> String {
    left.iter().map(|line| format!("\n  {line}")).collect()
}

fn status() -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for cluster in Cluster::all() {
        let kubeconfig = cluster.kubeconfig();
        lines.push(format!("{} ({}), {}", cluster.name(), cluster.primary(), kubeconfig.display()));
        for (machine, runs) in cluster.machines() {
            let state = if runs { "runs" } else { "is off" };
            lines.push(format!("  {machine} {state}, logs in {}", cluster.logs(machine).display()));
        }
    }
    if lines.is_empty() {
        lines.push("no cluster".to_owned());
    }
    Ok(list::print(&lines)?)
}

/// Becomes the command: a shell wants the terminal for itself.
#[expect(clippy::disallowed_methods, reason = "the user's own command, in place of this program")]
fn shell(name: &str, machine: &str, command: &[String]) -> anyhow::Result<()> {
    let shell = ["bash".to_owned()];
    let command = if command.is_empty() { &shell } else { command };
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let words = Cluster::open(name)?.on(machine, &argv)?;
    let (program, words) = words.split_first().context("an empty command")?;
    let error = std::process::Command::new(program).args(words).exec();
    Err(error).with_context(|| format!("run {program}"))
}
