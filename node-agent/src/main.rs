//! The node agent's process: settings, log, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use node_agent::app;
use node_agent::cli::check;
use node_agent::cli::uninstall::{self, Outcome};
use node_agent::cli::{Cli, Command};
use node_agent::config::{Log, LogFormat, Raw, RawCheck, RawUninstall};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Settings that cannot be used: trying again will not help.
const EXIT_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    match command {
        None => run_agent(settings),
        Some(Command::Uninstall(own)) => uninstall(settings, &own),
        Some(Command::Check(own)) => check(settings, &own),
    }
}

fn run_agent(settings: Raw) -> ExitCode {
    let config = match settings.understand() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    if let Err(error) = start_log(&config.log) {
        eprintln!("settings: RUST_LOG={:?}: {error}", config.log.filter);
        return ExitCode::from(EXIT_SETTINGS);
    }
    match netns::raise_descriptor_limit() {
        Ok(limit) => tracing::debug!(was = limit.was, now = limit.now, "limit of descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
    }
    let ended = block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(stop.clone()));
        let ended = app::run(config, stop).await;
        signals.abort();
        ended
    });
    match ended {
        Ok(Ok(())) => {
            tracing::info!("node agent ends; rules stay in the pods");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "node agent cannot go on");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            ExitCode::FAILURE
        }
    }
}

/// Its lines are for people and go to standard output; there is no log.
fn uninstall(settings: Raw, own: &RawUninstall) -> ExitCode {
    let config = match settings.understand_uninstall(own) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    // A namespace is held open for each pod; where that is too many, opening them says so.
    let _ = netns::raise_descriptor_limit();
    match block_on(uninstall::run(config)) {
        Ok(Ok(Outcome::Clean)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Left)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Problems are an answer, told on standard output.
fn check(settings: Raw, own: &RawCheck) -> ExitCode {
    let config = match settings.understand_check(own) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    let findings = match block_on(check::run(&config)) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", check::render(&findings, config.output));
    if check::has_problems(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // A file operation that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(ended)
}

fn start_log(log: &Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = log.filter.parse()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Plain => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals; the agent ends only when it is killed");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to stop");
    stop.cancel();
}
