//! The `ztunnel` program: arguments, settings, exit codes.

use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing::{error, info, warn};
use ztunnel::app;
use ztunnel::config::{Config, Raw};
use ztunnel::telemetry::log::Log;
use ztunnel::worker::Workers;

/// Buffers come and go in sizes for which the system's allocator asks the kernel each
/// time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for settings that cannot be used; every other failure is 1.
const BAD_SETTINGS: u8 = 2;

/// Threads of the control plane's clients, the agent's session and the administration,
/// which together do little: one decodes a large view while the other answers.
const CONTROL_THREADS: usize = 2;

/// What a task that does not end may keep the process for.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// The L4 proxy of a node. Settings come from the environment.
#[derive(Debug, Parser)]
#[command(name = "ztunnel", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Proxy the pods of this node (as without a command).
    Proxy {
        /// What to be; there is one choice.
        #[arg(value_parser = ["ztunnel"], default_value = "ztunnel")]
        role: String,
    },
}

fn main() -> ExitCode {
    let Arguments { command: _one_meaning } = Arguments::parse();
    let config = match Config::parse(&Raw::from_env()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("ztunnel: {mistakes}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    let log = match Log::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("ztunnel: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(config, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "ztunnel failed");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, log: &Log) -> Result<(), Box<dyn Error>> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node.node,
        threads = config.worker_threads,
        "ztunnel begins"
    );
    for warning in &config.warnings {
        warn!("{warning}");
    }
    match netns::raise_descriptor_limit() {
        Ok(limit) => info!(was = limit.was, now = limit.now, "limit of descriptors"),
        Err(error) => warn!(%error, "the limit of descriptors stays as it is"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let count = NonZeroUsize::new(config.worker_threads).unwrap_or(NonZeroUsize::MIN);
    let workers = Workers::start(count)?;
    let result = runtime.block_on(app::run(config, log, &workers));
    runtime.shutdown_timeout(LAST_TASKS);
    workers.shutdown(LAST_TASKS);
    Ok(result?)
}
