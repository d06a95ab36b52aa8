//! The one room of the lab that starts processes: in a namespace or in the host's,
//! always with an environment that is stated and not inherited, each in a process group
//! of its own so that a Ctrl-C at the terminal reaches the lab and nobody else.
#![expect(clippy::disallowed_methods, reason = "this room starts the lab's processes")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use netns::FenceError;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::place::Place;

/// Deadline of commands that only look at something.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// Where programs are looked for when the lab itself was started without a `PATH`.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started, most often because it is not installed.
    #[error("start {program}: {source}")]
    Start {
        /// What was to be run.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The namespace it was to run in could not be entered.
    #[error("start {program}: {source}")]
    Fence {
        /// What was to be run.
        program: String,
        /// What the fence said.
        source: FenceError,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {deadline:?} and was killed")]
    Deadline {
        /// What was run.
        program: String,
        /// How long it had.
        deadline: Duration,
    },
    /// Its end could not be observed.
    #[error("wait for {program}: {source}")]
    Wait {
        /// What was run.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The outcome of a command that ran to its end.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// A command to be: program, arguments, and the whole environment but `PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub stdin: Vec<u8>,
    pub deadline: Duration,
}

impl Job {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            deadline: LOOK,
        }
    }

    /// The first word is the program.
    pub fn of(argv: &[&str]) -> Self {
        let mut words = argv.iter();
        let mut job = Self::new(words.next().copied().unwrap_or_default());
        job.args = words.map(OsString::from).collect();
        job
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().env("PATH", search_path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// Runs `job` to its end, inside `place` or, without one, in the host's namespace.
pub(crate) async fn run(place: Option<&Place>, job: Job) -> Result<Ran, ProcessError> {
    let mut command = job.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(place, command, &job.name()).await?;
    let mut group = Group(child.id());
    let stdin = child.stdin.take();
    let input = job.stdin.clone();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes the pipe; that is its right.
            let _ = stdin.write_all(&input).await;
        }
    };
    let whole = async { tokio::join!(feed, child.wait_with_output()).1 };
    let Ok(ended) = tokio::time::timeout(job.deadline, whole).await else {
        return Err(ProcessError::Deadline { program: job.name(), deadline: job.deadline });
    };
    group.0 = None;
    let output = ended.map_err(|source| ProcessError::Wait { program: job.name(), source })?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A process and what it has started, killed together when nobody waits for them any more:
/// the process alone would leave its children to write into a lab that is being removed.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        kill_group(self.0);
    }
}

/// Starts a process that goes on, writing all it says to the end of `log`.
pub(crate) async fn start_logged(
    place: &Place,
    job: &Job,
    log: &Path,
) -> Result<Child, ProcessError> {
    let open = || File::options().create(true).append(true).open(log);
    let failed = |source| ProcessError::Start { program: job.name(), source };
    let out = open().map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut command = job.command();
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    start(Some(place), command, &job.name()).await
}

/// Starts a process that outlives this one, writing all it says to the end of `log`. Gives its
/// number.
pub(crate) fn start_detached(job: &Job, log: &Path) -> Result<i32, ProcessError> {
    let failed = |source| ProcessError::Start { program: job.name(), source };
    let out = File::options().create(true).append(true).open(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut command = std::process::Command::new(&job.program);
    command.args(&job.args).env_clear().env("PATH", search_path());
    command.envs(job.env.iter().map(|(name, value)| (name, value)));
    command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
    Ok(command.spawn().map_err(failed)?.id().cast_signed())
}

/// A child inherits the namespace of the thread that starts it: hence the fence.
async fn start(
    place: Option<&Place>,
    mut command: Command,
    program: &str,
) -> Result<Child, ProcessError> {
    let started = match place {
        None => command.spawn(),
        Some(place) => {
            let runtime = tokio::runtime::Handle::current();
            let job = move || {
                let _entered = runtime.enter();
                command.spawn()
            };
            place
                .inside(job)
                .await
                .map_err(|source| ProcessError::Fence { program: program.to_owned(), source })?
        }
    };
    started.map_err(|source| ProcessError::Start { program: program.to_owned(), source })
}

/// Asks `child` to end, and kills it when it has not after `deadline`.
pub(crate) async fn stop(child: &mut Child, deadline: Duration) -> io::Result<ExitStatus> {
    let group = child.id();
    if let Some(pid) = group.and_then(as_pid) {
        // It may be gone already; waiting below tells.
        let _ = kill(pid, Signal::SIGTERM);
    }
    let ended = match tokio::time::timeout(deadline, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            kill_group(group);
            child.wait().await
        }
    };
    // What it had started itself must not outlive it.
    kill_group(group);
    ended
}

/// Kills `child` and what it had started.
pub(crate) async fn kill_now(child: &mut Child) -> io::Result<ExitStatus> {
    kill_group(child.id());
    child.wait().await
}

fn kill_group(leader: Option<u32>) {
    if let Some(group) = leader.and_then(as_pid) {
        // Nobody left in the group is what is wanted.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

fn as_pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().map(Pid::from_raw)
}

/// The lab's own search path, the only thing of its environment that is handed on.
pub(crate) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into())
}

/// Looks a program up as a shell would.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|p| p.is_file())
}
