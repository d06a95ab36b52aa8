//! Takes everything of ours off the node, whoever put it there and however it ended.
//!
//! ```text
//! lock ─► survey ─► each thing is removed ─► survey: nothing left?
//!           │ conflist, what peers are told, pods, the node's rules, program, files
//!           └ a rehearsal prints what the survey found, and ends
//! ```
//!
//! The runtime's configuration comes first: pods that start meanwhile are not held up by a
//! plugin without an agent. The lock's file goes last.

mod files;
mod ground;
mod listening;
mod pods;
mod report;
mod said;
mod survey;
mod thing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use capture::Options;
use netns::{Fence, FenceError, NetnsError, PodNetns};
use tokio::runtime::Handle;

use crate::config::Plugin;
use crate::facts::PodUid;
use crate::install::{self, Applied, Folder, FolderError, FoundPlaces, Record, binary};
use crate::kube::KubeApi;
use crate::reconcile::{Memory, Remembered};
use crate::rules::{HostMetrics, HostProbes, Programs, Rules};
use crate::run_dir::{self, RunDir, RunDirError};
use report::Report;
use thing::Thing;

/// Fence workers; a job only starts a process or opens a socket.
const FENCE_WORKERS: usize = 4;
/// How often a file is taken up again that its owner writes at the same time.
const ATTEMPTS: usize = 5;

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What would be done is told.
    Rehearsal,
    /// It is done.
    Earnest,
}

/// What becomes of connections through ztunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// They are ended.
    AtOnce,
    /// They have so long to end by themselves.
    Drained(Duration),
}

/// How the API is reached, where that is possible at all.
#[derive(Clone, Debug)]
pub struct Kube {
    /// Name of this node in the API.
    pub node: String,
    /// Kubeconfig file; `None` is the service account of our own pod.
    pub kubeconfig: Option<PathBuf>,
}

/// Where everything is, and how it is to go.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether anything is changed.
    pub mode: Mode,
    /// What becomes of connections.
    pub leave: Leave,
    /// What becomes of the plugin's program.
    pub plugin: Plugin,
    /// The agent's directory.
    pub run_dir: RunDir,
    /// Files of ours outside of it: where ztunnel connects, and the plugin's log.
    pub outside: Vec<PathBuf>,
    /// The node's `/proc`.
    pub processes: PathBuf,
    /// Where the runtime's configuration and its plugins are.
    pub places: FoundPlaces,
    /// Name of our own list.
    pub conf_name: String,
    /// What its sandboxes were attached with.
    pub cache_dir: PathBuf,
    /// Programs that work on rules.
    pub programs: Programs,
    /// Rules of pods that asked for no others.
    pub options: Options,
    /// How the API is reached; without, peers are not told.
    pub kube: Option<Kube>,
    /// How long peers are given to learn that pods leave the mesh.
    pub withdraw_wait: Duration,
}

/// Why nothing could be done at all.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// An agent would put everything back.
    #[error(
        "a node agent acts on this node ({holder}) and would put back what is removed: stop it \
         first, by deleting its DaemonSet or by `systemctl stop node-agent`, and run this again"
    )]
    AgentRuns {
        /// Who.
        holder: String,
    },
    /// The lock.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// Namespaces cannot be entered.
    #[error("enter network namespaces: {0}")]
    Fence(#[from] FenceError),
    /// Our own namespace.
    #[error("open the node's network namespace: {0}")]
    Own(#[from] NetnsError),
    /// Its rules and sockets would not be seen.
    #[error(
        "this is not the node's network namespace, which {} has: the node's probe rules could \
         not be removed; run this with hostNetwork: true in a pod, or by nsenter --net={}",
        .first.display(), .first.display()
    )]
    NotTheNodes {
        /// Where the node's is.
        first: PathBuf,
    },
    /// What the API client needs.
    #[error("write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A second look has found nothing; or it was a rehearsal.
    Clean,
    /// Something is left, or could not be looked at; it was told what.
    Left,
}

/// What works on the node.
struct Node {
    config: Config,
    rules: Rules,
    host: HostProbes,
    fence: Fence,
    own: PodNetns,
    /// Where agents have installed the plugin.
    installed: Record,
    /// What pods had asked for.
    remembered: BTreeMap<PodUid, Remembered>,
    api: Result<KubeApi, String>,
}

/// Takes everything off the node and looks again, or tells what that would be.
///
/// # Errors
/// Any [`UninstallError`]; nothing was changed then.
pub async fn run(config: Config) -> Result<Outcome, UninstallError> {
    let fence = Fence::new(FENCE_WORKERS)?;
    let own = PodNetns::current()?;
    ground::is_the_nodes(&own, &config.processes)?;
    let rules = Rules::new(config.programs.clone(), fence.clone(), Handle::current());
    let host = HostProbes::new(&rules, own.clone(), HostMetrics::default());
    let api = said::api(&config).await;
    let installed = Record::read(&config.run_dir.installed());
    let remembered = Memory::open(&config.run_dir.memory()).await.found().clone();
    let node = Node { config, rules, host, fence, own, installed, remembered, api };
    match node.config.mode {
        Mode::Rehearsal => node.rehearse().await,
        Mode::Earnest => node.remove_all().await,
    }
}

impl Node {
    async fn rehearse(&self) -> Result<Outcome, UninstallError> {
        let mut report = Report::new(std::io::stdout());
        let acts = run_dir::is_taken(&self.config.run_dir)?;
        let found = self.survey().await;
        report.troubles(&found.troubles)?;
        for thing in &found.things {
            report.line(&thing.to_string())?;
        }
        report.notes(&found.notes)?;
        if acts {
            report.note(&self.agent_runs().to_string())?;
        }
        report.line("dry run: nothing was changed")?;
        Ok(if found.troubles.is_empty() { Outcome::Clean } else { Outcome::Left })
    }

    async fn remove_all(&self) -> Result<Outcome, UninstallError> {
        let mut report = Report::new(std::io::stdout());
        let lock = run_dir::try_take(&self.config.run_dir)?.ok_or_else(|| self.agent_runs())?;
        let found = self.survey().await;
        report.troubles(&found.troubles)?;
        let (mut before, mut pods, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for thing in found.things {
            match thing {
                Thing::Conf(..) | Thing::Said { .. } => before.push(thing),
                Thing::Pod(place) => pods.push(place),
                _ => after.push(thing),
            }
        }
        for thing in &before {
            self.remove(thing, &mut report).await?;
        }
        self.release_all(pods, &mut report).await?;
        for thing in &after {
            self.remove(thing, &mut report).await?;
        }
        let left = self.survey().await;
        drop(lock);
        report.notes(&left.notes)?;
        report.troubles(&left.troubles)?;
        for thing in &left.things {
            report.trouble(&format!("still there: {thing}"))?;
        }
        if !left.things.is_empty() || !left.troubles.is_empty() {
            return Ok(Outcome::Left);
        }
        report.line("a second look has found nothing of Sluice on this node")?;
        Ok(Outcome::Clean)
    }

    async fn remove(&self, thing: &Thing, report: &mut Report) -> Result<(), UninstallError> {
        let removed = match thing {
            // They are released together, before.
            Thing::Pod(_) => Ok(()),
            Thing::Said { pods, .. } => self.withdraw(pods).await,
            Thing::Condition => self.forget_node().await,
            Thing::Conf(folder, change) => self.free(folder, change.name()),
            Thing::Host => self.host.remove().await.map_err(|error| error.to_string()),
            Thing::Program(path) => binary::remove(path).map_err(|error| error.to_string()),
            Thing::File(path) | Thing::Folder(path) => {
                files::remove(path).map_err(|error| error.to_string())
            }
        };
        Ok(report.outcome(&thing.to_string(), removed)?)
    }

    /// Takes us out of one file as it is now: since it was looked at, its owner may have written
    /// another, or removed it.
    fn free(&self, folder: &Folder, name: &str) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            let view = folder.read().map_err(|error| error.to_string())?;
            let undo = install::undo(&view, &self.config.conf_name);
            if let Some(by) = undo.called.get(name) {
                return Err(format!("{by} calls it by its path: no pod could start without it"));
            }
            let mut changes = undo.changes.iter().filter(|change| change.name() == name);
            let made = changes.try_fold(Applied::Made, |made, change| {
                let applied = folder.apply(change)?;
                Ok::<_, FolderError>(if made == Applied::Made { applied } else { made })
            });
            if made.map_err(|error| error.to_string())? == Applied::Made {
                return Ok(());
            }
        }
        Err("its owner writes it again and again: run this again".into())
    }

    fn agent_runs(&self) -> UninstallError {
        let Config { run_dir, processes, .. } = &self.config;
        let holder = run_dir::holder(run_dir, processes);
        let holder = holder.or_else(|| run_dir::holder(run_dir, "/proc".as_ref()));
        let unknown = || format!("somebody holds {}", run_dir.lock().display());
        UninstallError::AgentRuns { holder: holder.unwrap_or_else(unknown) }
    }
}
