//! The only place that starts processes: `nft`, `conntrack` and `ss`, inside a pod's
//! network namespace.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use netns::{Fence, FenceError, PodNetns};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use crate::inside::inside;

/// Far more than the slowest call needs on a loaded node; after it the process is killed.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a program gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The namespace could not be entered.
    #[error("start {}: {source}", .program.display())]
    Fence {
        /// The program.
        program: PathBuf,
        /// The fence's answer.
        source: FenceError,
    },
    /// The program could not be started: is it installed there?
    #[error("start {}: {source}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Talking to it failed.
    #[error("talk to {}: {source}", .program.display())]
    Pipe {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{} did not end within {LIMIT:?} and was killed", .program.display())]
    TimedOut {
        /// The program.
        program: PathBuf,
    },
    /// It refused.
    #[error("{} failed ({status}): {}", .program.display(), one_line(.stderr))]
    Refused {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
}

/// What a program said, whether it succeeded or not.
#[derive(Debug)]
pub(super) struct Output {
    program: PathBuf,
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Output {
    /// Standard output, if the program succeeded.
    pub(super) fn success(self) -> Result<String, CommandError> {
        let Self { program, status, stdout, stderr } = self;
        if status.success() {
            return Ok(stdout);
        }
        Err(CommandError::Refused { program, status, stderr })
    }

    pub(super) fn succeeded(&self) -> bool {
        self.status.success()
    }
}

/// Starts programs in namespaces.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    fence: Fence,
    runtime: Handle,
}

impl Runner {
    pub(super) fn new(fence: Fence, runtime: Handle) -> Self {
        Self { fence, runtime }
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `program` in `netns` to its end. Only starting it takes a fence worker: a
    /// child inherits the namespace of the thread that made it and keeps it.
    pub(super) async fn run(
        &self,
        netns: &PodNetns,
        program: &Path,
        arguments: &[&str],
        input: String,
    ) -> Result<Output, CommandError> {
        let child = self.start(netns, program, arguments).await?;
        match tokio::time::timeout(LIMIT, converse(child, input)).await {
            Ok(Ok((status, stdout, stderr))) => {
                Ok(Output { program: program.to_owned(), status, stdout, stderr })
            }
            Ok(Err(source)) => Err(CommandError::Pipe { program: program.to_owned(), source }),
            // The child went with the future: dropping it kills it.
            Err(_) => Err(CommandError::TimedOut { program: program.to_owned() }),
        }
    }

    async fn start(
        &self,
        netns: &PodNetns,
        program: &Path,
        arguments: &[&str],
    ) -> Result<Child, CommandError> {
        #[expect(clippy::disallowed_methods, reason = "this file owns starting processes")]
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let runtime = self.runtime.clone();
        let spawn = move || {
            let _reactor = runtime.enter();
            command.spawn()
        };
        let owned = || program.to_owned();
        inside(&self.fence, netns, spawn)
            .await
            .map_err(|source| CommandError::Fence { program: owned(), source })?
            .map_err(|source| CommandError::Start { program: owned(), source })
    }
}

/// Feeds and reads at the same time, because a full pipe stops either side.
async fn converse(mut child: Child, input: String) -> io::Result<(ExitStatus, String, String)> {
    let mut stdin = child.stdin.take();
    let feed = async {
        if let Some(stdin) = stdin.as_mut() {
            match stdin.write_all(input.as_bytes()).await {
                // It ended without reading on; its status says why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        drop(stdin);
        Ok(())
    };
    let ((), output) = tokio::try_join!(feed, child.wait_with_output())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status, text(output.stdout), text(output.stderr)))
}

fn one_line(stderr: &str) -> String {
    let lines: Vec<_> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".into() } else { lines.join(" | ") }
}
