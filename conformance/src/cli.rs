//! What the command line offers.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use lab::Subject;

use crate::cluster_commands::ClusterCommand;
use crate::demo::{Afterwards, Demo};
use crate::suite::Suite;

/// Proves the behaviours of a mesh on this machine, in network namespaces.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios; exits with 1 when one fails.
    Run {
        /// Only scenarios whose id contains one of these texts.
        #[arg(long)]
        only: Vec<String>,
        /// Where the evidence of failures goes.
        #[arg(long, default_value = "conformance-evidence")]
        evidence: PathBuf,
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// List the scenarios.
    List,
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
            Command::Run { only, evidence, subject } => {
                Suite { subject: subject.resolve()?, only, evidence }.run().await
            }
            Command::List => {
                crate::suite::list();
                Ok(())
            }
            Command::Cluster(command) => command.run().await,
            Command::ClusterPart { .. } => bail!("parts are started before the runtime"),
            Command::Demo { keep, subject } => {
                let afterwards = if keep { Afterwards::Keep } else { Afterwards::TearDown };
                Box::pin(Demo::new(subject.resolve()?, afterwards).run()).await
            }
        }
    }
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find this program's own folder")?;
    program.parent().map(Path::to_owned).context("this program has no folder")
}
