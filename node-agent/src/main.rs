//! The node agent's process: settings, log, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use node_agent::app;
use node_agent::config::{Log, LogFormat, Raw};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Settings that cannot be used: trying again will not help.
const EXIT_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let config = match Raw::parse().understand() {
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
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(stop.clone()));
        let ended = app::run(config, stop).await;
        signals.abort();
        ended
    });
    // A file operation that hangs must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            tracing::info!("node agent ends; rules stay in the pods");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "node agent cannot go on");
            ExitCode::FAILURE
        }
    }
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
