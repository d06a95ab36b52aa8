//! One process of the implementation under test, on one node.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::Mutex;

use crate::patience::{TimedOut, eventually};
use crate::place::Place;
use crate::process::{self, Job, ProcessError};
use crate::state::Ledger;

/// Between SIGTERM and SIGKILL. Longer than the longest drain a part does at its end.
const TERM_DEADLINE: Duration = Duration::from_secs(15);

/// How much of a log an error message quotes.
const TAIL_LINES: usize = 12;

/// Why a part is not in the state it should be in.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It could not be started.
    #[error("{part}: {source}")]
    Start {
        /// Which part of which node.
        part: String,
        /// What went wrong.
        source: ProcessError,
    },
    /// It runs already, or does not run.
    #[error("{part} {state}")]
    State {
        /// Which part of which node.
        part: String,
        /// What is unexpected.
        state: &'static str,
    },
    /// It ended by itself.
    #[error("{part} ended by itself with {status}; the end of its log:\n{tail}")]
    Ended {
        /// Which part of which node.
        part: String,
        /// How.
        status: ExitStatus,
        /// Its last words.
        tail: String,
    },
    /// It runs and is not ready.
    #[error("{part}: {source}; the end of its log:\n{tail}")]
    NotReady {
        /// Which part of which node.
        part: String,
        /// What was waited for.
        source: TimedOut,
        /// Its last words.
        tail: String,
    },
    /// The system lost track of it.
    #[error("{part}: {step}: {source}")]
    Io {
        /// Which part of which node.
        part: String,
        /// What was attempted.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Where a part says that it is ready, on the loopback address of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub port: u16,
    pub path: &'static str,
}

/// A process that can be started, stopped, killed and watched. Stopped when the lab is.
#[derive(Debug)]
pub struct Part {
    name: String,
    place: Place,
    job: Job,
    log: PathBuf,
    readiness: Readiness,
    ledger: Arc<Ledger>,
    child: Mutex<Option<Child>>,
}

impl Part {
    pub(crate) fn new(
        program: &str,
        place: &Place,
        job: Job,
        log: PathBuf,
        readiness: Readiness,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self {
            name: format!("{program} of {}", place.name()),
            place: place.clone(),
            job,
            log,
            readiness,
            ledger: Arc::clone(ledger),
            child: Mutex::new(None),
        }
    }

    /// What it is called in messages, for example `ztunnel of node1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that all its output goes to, over restarts.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All it has said so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// Its process, while it runs.
    pub async fn pid(&self) -> Option<u32> {
        let mut child = self.child.lock().await;
        let child = child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())?
    }

    /// Whether it was started, and neither stopped nor killed since: it runs, or ended by itself.
    pub(crate) async fn was_started(&self) -> bool {
        self.child.lock().await.is_some()
    }

    /// Starts it, without waiting for readiness.
    ///
    /// # Errors
    /// [`PartError::Start`]; [`PartError::State`] when it runs already.
    pub async fn start(&self) -> Result<(), PartError> {
        let mut slot = self.child.lock().await;
        if let Some(child) = slot.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Err(self.state("runs already"));
        }
        let child = process::start_logged(&self.place, &self.job, &self.log)
            .await
            .map_err(|source| PartError::Start { part: self.name.clone(), source })?;
        let pid = child.id();
        *slot = Some(child);
        tracing::info!(part = self.name, pid, "started");
        if let Some(pid) = pid {
            let noted = self.ledger.started(&self.name, pid);
            noted.map_err(|source| self.io("note its process", source))?;
        }
        Ok(())
    }

    /// Whether it says that it is ready, now.
    pub async fn is_ready(&self) -> bool {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.readiness.port));
        matches!(self.place.http_get(to, self.readiness.path).await, Ok((200, _)))
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// [`PartError::NotReady`] or [`PartError::Ended`], with the end of its log.
    pub async fn ready(&self) -> Result<(), PartError> {
        let Readiness { port, path } = self.readiness;
        let what = format!("readiness on port {port}, {path},");
        let settled = eventually(&what, self.place.patience(), || async {
            match self.ended().await {
                Some(status) => Some(Err(status)),
                None => self.is_ready().await.then_some(Ok(())),
            }
        });
        match settled.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                Err(PartError::Ended { part: self.name.clone(), status, tail: self.tail() })
            }
            Err(source) => {
                Err(PartError::NotReady { part: self.name.clone(), source, tail: self.tail() })
            }
        }
    }

    /// Asks it to end, and kills it when it has not after 15 s.
    ///
    /// # Errors
    /// [`PartError::State`] when it was not started.
    pub async fn stop(&self) -> Result<ExitStatus, PartError> {
        let mut child = self.take().await?;
        let pid = child.id();
        let ended = process::stop(&mut child, TERM_DEADLINE).await;
        self.gone(pid, ended)
    }

    /// Kills it without warning.
    ///
    /// # Errors
    /// [`PartError::State`] when it was not started.
    pub async fn kill(&self) -> Result<ExitStatus, PartError> {
        let mut child = self.take().await?;
        let pid = child.id();
        let ended = process::kill_now(&mut child).await;
        self.gone(pid, ended)
    }

    /// Stops it, starts it, and waits until it is ready.
    ///
    /// # Errors
    /// [`PartError`].
    pub async fn restart(&self) -> Result<(), PartError> {
        self.stop().await?;
        self.start().await?;
        self.ready().await
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) async fn running(&self) -> Result<u32, PartError> {
        self.pid().await.ok_or_else(|| self.state("does not run"))
    }

    pub(crate) fn not_traced(&self, source: ProcessError) -> PartError {
        PartError::Start { part: format!("strace of {}", self.name), source }
    }

    pub(crate) fn not_watched(&self, source: TimedOut, tail: String) -> PartError {
        PartError::NotReady { part: format!("strace of {}", self.name), source, tail }
    }

    async fn take(&self) -> Result<Child, PartError> {
        self.child.lock().await.take().ok_or_else(|| self.state("was not started"))
    }

    async fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().await.as_mut()?.try_wait().ok().flatten()
    }

    fn gone(
        &self,
        pid: Option<u32>,
        ended: io::Result<ExitStatus>,
    ) -> Result<ExitStatus, PartError> {
        let status = ended.map_err(|source| self.io("wait for its end", source))?;
        tracing::info!(part = self.name, %status, "ended");
        if let Some(pid) = pid {
            self.ledger.ended(pid).map_err(|source| self.io("note its end", source))?;
        }
        Ok(status)
    }

    fn tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn state(&self, state: &'static str) -> PartError {
        PartError::State { part: self.name.clone(), state }
    }

    fn io(&self, step: &'static str, source: io::Error) -> PartError {
        PartError::Io { part: self.name.clone(), step, source }
    }
}
