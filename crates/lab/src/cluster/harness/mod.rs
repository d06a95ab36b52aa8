//! Real clusters on one Linux machine: etcd, the Kubernetes API, controllers and scheduler, and
//! nodes with containerd, kubelet and the real programs of a primary CNI.
//!
//! ```text
//! host ── relay 127.0.0.1 ──► machine control-plane: wire 172.31.99.1 (bridge)
//!                             etcd kube-apiserver kube-controller-manager kube-scheduler
//!                                │ node1               │ node2
//!                             machine node1          machine node2: eth0 172.31.99.12
//!                             containerd kubelet kube-proxy, the primary's daemon, pods
//! ```
//!
//! A machine is a set of namespaces (processes, mounts, network, control groups, host name)
//! whose first process is ours (`init.rs`): what runs on it ends with it, and what it writes is
//! kept in memory over the host's root, which stays as it is. A cluster outlives the command
//! that started it; [`Cluster::open`] finds it again by its name.

mod cgroups;
mod control_plane;
mod errors;
mod init;
mod machine;
mod names;
mod pki;
mod place;
mod plan;
mod primary;
mod record;
mod relay;
mod removal;
mod starting;
mod tools;
mod waiting;
mod wiring;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::options::Family;
use crate::process::{self, Job, ProcessError, Ran};

pub use control_plane::FurnishError;
pub use errors::UpError;
pub use primary::{CiliumMode, IptablesKind, Primary, UnknownPrimary};

pub use tools::{ToolError, Tools};
pub use worker::PodGroups;

use plan::Plan;
use record::Record;

/// Where clusters keep their folders.
pub const ROOT: &str = "/run/sluice-cluster";

/// The hidden command of the calling program that must end in [`part`].
pub const PART: &str = "cluster-part";

/// What a cluster is asked to be.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its name, part of paths: letters, digits and hyphens.
    pub name: String,
    /// Its primary CNI.
    pub primary: Primary,
    /// Number of nodes, 1 to 9.
    pub nodes: u8,
    /// Families of pods, services and nodes.
    pub family: Family,
    /// Where pods' control groups are.
    pub pod_groups: PodGroups,
    /// The programs.
    pub tools: Tools,
    /// The program whose hidden command [`PART`] leads to [`part`]; most often the caller.
    pub program: PathBuf,
    /// How long each step may take.
    pub patience: Duration,
}

impl ClusterOptions {
    /// Its primary CNI with version and mode, and its families where they are not IPv4 alone,
    /// for people.
    #[must_use]
    pub fn described(&self) -> String {
        let primary = self.primary.described(&self.tools);
        match self.family {
            Family::V4 => primary,
            Family::V6 => format!("{primary}, IPv6 only"),
            Family::Dual => format!("{primary}, dual stack"),
        }
    }

    /// An address for a Service that must have one before names are resolved; nobody else's.
    #[must_use]
    pub fn spare_service_address(&self) -> &'static str {
        Plan { family: self.family }.spare_service()
    }
}

/// A cluster that has been started.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    record: Record,
}

/// No cluster of that name is there.
#[derive(Debug, thiserror::Error)]
#[error("there is no cluster {name} in {ROOT}; scripts/cluster status lists those that are")]
pub struct NoCluster {
    /// What was asked for.
    pub name: String,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No such machine, or it does not run.
    #[error("machine {0} does not run")]
    Machine(String),
    /// It could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl Cluster {
    /// Starts a cluster and waits until its nodes are ready. Needs root. After a failure
    /// nothing of it is left.
    ///
    /// # Errors
    /// [`UpError`], naming the step and quoting the log of the program that is at fault.
    pub async fn up(options: &ClusterOptions) -> Result<Self, UpError> {
        starting::up(options).await
    }

    /// The cluster of this name.
    ///
    /// # Errors
    /// [`NoCluster`].
    pub fn open(name: &str) -> Result<Self, NoCluster> {
        let folder = Path::new(ROOT).join(name);
        match Record::read(&folder) {
            Ok(record) => Ok(Self { folder, record }),
            Err(_) => Err(NoCluster { name: name.to_owned() }),
        }
    }

    /// All clusters of this host.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let open = |folder: PathBuf| Some(Self { record: Record::read(&folder).ok()?, folder });
        record::all(Path::new(ROOT)).into_iter().filter_map(open).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its primary CNI, by name.
    #[must_use]
    pub fn primary(&self) -> &str {
        &self.record.primary
    }

    /// For the user's kubectl, from the host.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Its machines by name, and whether each runs.
    #[must_use]
    pub fn machines(&self) -> Vec<(&str, bool)> {
        let alive = |machine: &record::Running| machine.init.is_some_and(|init| init.is_alive());
        self.record.machines.iter().map(|machine| (machine.name.as_str(), alive(machine))).collect()
    }

    /// The folder with the logs of a machine's programs.
    #[must_use]
    pub fn logs(&self, machine: &str) -> PathBuf {
        machine::Machine::new(machine, self.folder.join(machine)).logs()
    }

    /// Words that run `argv` on a machine, for a process that the caller starts itself.
    ///
    /// # Errors
    /// [`ExecError::Machine`].
    pub fn on(&self, machine: &str, argv: &[&str]) -> Result<Vec<String>, ExecError> {
        let running = self.record.machine(machine).and_then(|machine| machine.init);
        let init = running.filter(|init| init.is_alive());
        let init = init.ok_or_else(|| ExecError::Machine(machine.to_owned()))?;
        let enter =
            ["nsenter", "--mount", "--net", "--pid", "--cgroup", "--uts", "--ipc", "--target"];
        let mut words: Vec<String> = enter.map(str::to_owned).to_vec();
        words.extend([init.pid.to_string(), "--".to_owned()]);
        words.extend(argv.iter().map(|&word| word.to_owned()));
        Ok(words)
    }

    /// Runs a command on a machine to its end.
    ///
    /// # Errors
    /// [`ExecError`]; a command that ran and failed is an outcome.
    pub async fn run(
        &self,
        machine: &str,
        argv: &[&str],
        stdin: Vec<u8>,
        deadline: Duration,
    ) -> Result<Ran, ExecError> {
        let words = self.on(machine, argv)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let job = Job { stdin, deadline, ..Job::of(&words) };
        Ok(process::run(None, job).await?)
    }

    /// Runs kubectl as the cluster's administrator, from the host.
    ///
    /// # Errors
    /// [`KubectlError`].
    pub async fn kubectl(
        &self,
        tools: &Tools,
        args: &[&str],
        stdin: Vec<u8>,
        deadline: Duration,
    ) -> Result<Ran, KubectlError> {
        let program = tools.built("kubernetes", "kubectl")?;
        Ok(self.as_administrator(&program, args, stdin, deadline).await?)
    }

    /// Runs a program of the host as the cluster's administrator: helm, for example.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn as_administrator(
        &self,
        program: &Path,
        args: &[&str],
        stdin: Vec<u8>,
        deadline: Duration,
    ) -> Result<Ran, ProcessError> {
        let mut job = Job { stdin, deadline, ..Job::new(program) };
        job = job.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.folder);
        job.args = args.iter().map(Into::into).collect();
        process::run(None, job).await
    }

    /// Imports an image (an OCI or Docker archive) into the runtime of every node.
    ///
    /// # Errors
    /// [`UpError::Image`], quoting what the runtime said.
    pub async fn import(&self, archive: &Path, patience: Duration) -> Result<(), UpError> {
        starting::import(self, archive, patience).await
    }

    /// Cuts a node's power: all its processes end at once, its network is gone, its disk
    /// stays.
    ///
    /// # Errors
    /// [`ExecError::Machine`].
    pub fn cut_power(&self, node: &str) -> Result<(), ExecError> {
        let running = self.record.machine(node);
        removal::end_machine(running.ok_or_else(|| ExecError::Machine(node.to_owned()))?);
        Ok(())
    }

    /// Starts a node again whose power was cut. Does not wait until it is ready.
    ///
    /// # Errors
    /// [`UpError`].
    pub async fn power_on(
        &mut self,
        node: &str,
        program: PathBuf,
        patience: Duration,
    ) -> Result<(), UpError> {
        let Record { name, primary, family, nodes, tools, .. } = &self.record;
        let options = ClusterOptions {
            name: name.clone(),
            primary: primary.parse().map_err(|error: UnknownPrimary| {
                UpError::Options(format!("cluster {name} was made by another version: {error}"))
            })?,
            nodes: *nodes,
            family: *family,
            // A node that was made keeps its kubelet's settings.
            pod_groups: PodGroups::default(),
            tools: Tools::new(tools),
            program,
            patience,
        };
        starting::power_on(self, &options, node).await
    }

    /// Ends the cluster. What could not be removed is told, one line each.
    #[must_use]
    pub fn down(self) -> Vec<String> {
        removal::remove(&self.folder)
    }
}

/// Why kubectl has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum KubectlError {
    /// It is not built.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// It could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What a program does that was started with [`PART`] and these words: it is a machine's first
/// process, or the relay to the API. Must be called before threads are started.
///
/// # Errors
/// When the part could not begin, or its words are not those of a part.
pub fn part(words: &[String]) -> io::Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["boot", folder] => {
            let program = std::env::current_exe()?;
            init::boot(Path::new(folder), &program, &[PART, "init"])
        }
        ["init", folder] => init::init(Path::new(folder)),
        ["relay", netns, to, told] => {
            let to: SocketAddr = to.parse().map_err(io::Error::other)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(relay::relay(Path::new(netns), to, Path::new(told)))
        }
        _ => Err(io::Error::other("only a cluster's harness starts this command")),
    }
}
