//! Turning events into lines on standard output.

use std::io;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use super::levels::{LevelError, Levels};
pub use super::line::Layout;
use super::writer::LineWriter;

/// How long the last lines may take at the end of the process.
const LAST_LINES: Duration = Duration::from_millis(500);

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Levels per target, in the language of `RUST_LOG`.
    pub filter: String,
    /// Look of a line.
    pub layout: Layout,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// No thread could be started.
    #[error("start the log thread: {0}")]
    Thread(#[source] io::Error),
    /// The process has a log already.
    #[error("install the log: {0}")]
    Installed(#[from] TryInitError),
}

/// Keeps the log; dropping it writes what is still queued.
#[derive(Debug)]
pub struct Log {
    writer: LineWriter,
    levels: Levels,
}

impl Settings {
    /// Checks the filter without using it.
    ///
    /// # Errors
    /// [`LogError::Filter`].
    pub fn check(&self) -> Result<(), LogError> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        EnvFilter::builder()
            .with_regex(false)
            .parse(&self.filter)
            .map_err(|source| LogError::Filter { filter: self.filter.clone(), source })
    }
}

impl Log {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// Any [`LogError`].
    pub fn start(settings: &Settings) -> Result<Self, LogError> {
        let writer = LineWriter::start(io::stdout()).map_err(LogError::Thread)?;
        let (filter, levels) = Levels::new(settings.filter()?);
        let lines = tracing_subscriber::fmt::layer()
            .event_format(settings.layout)
            .with_writer(writer.clone());
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        Ok(Self { writer, levels })
    }

    /// The way to change what is logged.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// Registers the counter of lost lines.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sluice_log_lines_dropped",
            "Log lines lost because nobody read our output fast enough",
            self.writer.dropped().clone(),
        );
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.flush(LAST_LINES);
    }
}
