//! The conformance suite and the demo.
//!
//! ```text
//! stage (one lab per address family) ─► scenario: make pods, act, observe ─► verdict
//!                                          on failure: rules, sockets and logs are kept
//! ```
//!
//! On a real cluster the same is done by the API server, see `cluster`. What a run has found
//! is one `report`, whatever it is rendered as.
//!
//! Scenarios judge an implementation by what can be observed from outside: packets on the
//! wire between the nodes, rules read back from the kernel, Kubernetes objects, and what
//! applications in pods see. The implementation is chosen at run time.

mod behaviours;
mod cli;
mod cluster;
mod cluster_commands;
mod demo;
mod ending;
mod helm;
mod list;
mod load;
mod observe;
mod on_harness;
mod oracle;
mod pod_app;
mod report;
mod scenario;
mod scenarios;
mod suite;
mod witness;
mod world;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

/// What a request to an API server failed with is told by whom it fails, if it is a failure there.
const LOGGED: &str = "warn,kube_client=off";

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGGED)),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if let Some(words) = arguments.cluster_part() {
        let ended = lab::cluster::harness::part(words);
        return ended.map_or_else(|error| complain(&error), |()| ExitCode::SUCCESS);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(arguments.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<cli::Failed>() => ExitCode::FAILURE,
        Err(error) => complain(&format!("{error:#}")),
    }
}

fn complain(why: &impl std::fmt::Display) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
