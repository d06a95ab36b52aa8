//! `sluice-control`: the embedded control plane as a program.

mod args;
mod tasks;

use std::io::IsTerminal;
use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use control::Control;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Our errors name their causes themselves; only a context is put in front.
            let causes: Vec<_> = error.chain().take(2).map(ToString::to_string).collect();
            let told = causes.iter().skip(1).all(|cause| causes[0].contains(cause.as_str()));
            let text = if told { causes[0].clone() } else { causes.join(": ") };
            eprintln!("sluice-control: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).context("RUST_LOG")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for people who look, not for the logs of a cluster.
    log.with_ansi(std::io::stderr().is_terminal()).init();
    // The Kubernetes client asks for the process's provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;

    if let Some(task) = &args.task {
        return tasks::run(task, [&mut interrupt, &mut terminate]).await;
    }
    let listener = TcpListener::bind(args.listen_addr)
        .with_context(|| format!("LISTEN_ADDR {} cannot be listened on", args.listen_addr))?;
    // The API is waited for there, and whoever wants us to end must not have to wait for it.
    let mut control = tokio::select! {
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        started = Control::start(args.settings(), listener) => started?,
    };
    if let Some(path) = &args.root_cert_file {
        std::fs::write(path, control.root_pem())
            .with_context(|| format!("ROOT_CERT_FILE {} cannot be written", path.display()))?;
    }
    let broken = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        reason = control.broken() => Some(reason),
    };
    tracing::info!("stopping");
    control.shutdown().await;
    broken.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}
