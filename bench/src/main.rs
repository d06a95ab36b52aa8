//! Measures ztunnel and the node agent, and looks for what grows, with real processes in network namespaces.
//!
//! ```text
//! measure ─► alone: one ztunnel, a mesh from a file, this program as its node agent
//!         └► town:  a lab with two nodes; one pair of pods captured, one not
//!                   ─► traffic (interleaved rounds over both pairs), idle connections
//! capture ─► ward: a lab with one node, which pods fill that this program makes
//! plugin ──► the CNI plugin, start to end, with an agent that answers at once
//! soak ────► town, and everything that changes in a mesh, over and over
//! ```

mod agent;
mod alone;
mod capture;
mod crowd;
mod idle;
mod load;
mod plugin;
mod process;
mod report;
mod soak;
mod starts;
mod town;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use lab::Subject;
use tokio::signal::unix::{SignalKind, signal};

use crate::capture::Ward;
use crate::report::Report;
use crate::town::Town;

/// Measures ztunnel in network namespaces of this machine, as root.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints what ztunnel costs, next to the same traffic without it.
    Measure {
        /// About a minute in all, with fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Only what it holds: no traffic.
        #[arg(long)]
        memory: bool,
        /// Also write the figures there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// Prints how fast pods are captured, and what looking after them costs.
    Capture {
        /// Also write the figures there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// Prints what one start of the CNI plugin costs.
    Plugin {
        /// The plugin's binary.
        #[arg(long)]
        plugin: PathBuf,
        /// Also write the figures there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Changes everything that can change, and fails when something grows.
    Soak {
        /// For how long, in seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        #[command(flatten)]
        subject: SubjectArgs,
    },
}

/// Where the programs are.
#[derive(Debug, Args)]
struct SubjectArgs {
    /// Folder with `node-agent` and `sluice-cni`.
    #[arg(long)]
    binaries: PathBuf,
    /// The ztunnel.
    #[arg(long)]
    ztunnel: PathBuf,
}

impl SubjectArgs {
    fn subject(&self) -> Subject {
        Subject {
            node_agent: self.binaries.join("node-agent"),
            ztunnel: self.ztunnel.clone(),
            cni_plugin_dir: self.binaries.clone(),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments.command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stage = Stage::default();
    let done = tokio::select! {
        done = Box::pin(perform(command, &mut stage)) => done,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("asked to terminate")),
    };
    done.and(stage.tear_down().await)
}

/// What was built for a command and is to be taken down after it, however it ended.
#[derive(Default)]
struct Stage {
    town: Option<Town>,
    ward: Option<Ward>,
}

impl Stage {
    async fn tear_down(self) -> anyhow::Result<()> {
        if let Some(town) = self.town {
            town.tear_down().await?;
        }
        match self.ward {
            Some(ward) => ward.tear_down().await,
            None => Ok(()),
        }
    }
}

async fn perform(command: Command, stage: &mut Stage) -> anyhow::Result<()> {
    match command {
        Command::Measure { quick, memory, json, subject } => {
            let plan = if quick { QUICK } else { FULL };
            let mut report = Report::default();
            alone::measure(&subject.ztunnel, &plan, &mut report).await?;
            let town = stage.town.insert(Town::start(subject.subject()).await?);
            if !memory {
                traffic::measure(town, &plan, &mut report).await?;
            }
            idle::measure(town, &plan, &mut report).await?;
            write(json, &report)
        }
        Command::Capture { json, subject } => {
            let mut report = Report::default();
            let ward = stage.ward.insert(Ward::start(subject.subject()).await?);
            capture::measure(ward, &mut report).await?;
            write(json, &report)
        }
        Command::Plugin { plugin, json } => {
            let mut report = Report::default();
            starts::measure(&plugin, &mut report)?;
            write(json, &report)
        }
        Command::Soak { seconds, subject } => {
            let town = stage.town.insert(Town::start(subject.subject()).await?);
            soak::run(town, Duration::from_secs(seconds)).await
        }
    }
}

fn write(json: Option<PathBuf>, report: &Report) -> anyhow::Result<()> {
    match json {
        Some(path) => std::fs::write(&path, report.json())
            .with_context(|| format!("write {}", path.display())),
        None => Ok(()),
    }
}

/// How much is measured.
#[derive(Debug)]
struct Plan {
    rounds: usize,
    /// Of one kind of traffic, with or without capture, in one round.
    span: Duration,
    /// Pods that one ztunnel is given.
    pods: usize,
    /// Sizes of the mesh.
    workloads: &'static [usize],
    starts: usize,
    /// Idle connections.
    idle: &'static [usize],
}

const QUICK: Plan = Plan {
    rounds: 2,
    span: Duration::from_millis(700),
    pods: 100,
    workloads: &[10_000],
    starts: 3,
    idle: &[1_000],
};

const FULL: Plan = Plan {
    rounds: 5,
    span: Duration::from_secs(2),
    pods: 100,
    workloads: &[10_000, 100_000],
    starts: 7,
    idle: &[1_000, 10_000],
};
