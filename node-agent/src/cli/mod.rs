//! The command line: without a command the agent runs.

pub mod check;
pub mod uninstall;

use clap::{Parser, Subcommand};

use crate::config::{Raw, RawCheck, RawUninstall};

/// What the process was asked for. The agent's settings stand before the command, or in the
/// environment.
#[derive(Debug, Parser)]
#[command(name = "node-agent", version, about = "Captures the pods of one node for Sluice")]
pub struct Cli {
    /// The agent's settings, which also tell commands where it works.
    #[command(flatten)]
    pub settings: Raw,
    /// What to do instead of running the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done besides running the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Release every pod of this node and take everything of Sluice off it. Needs no API
    /// server, and that no agent runs.
    Uninstall(RawUninstall),
    /// Say what of this cluster, and with NODE_NAME of this node, will not work with Sluice,
    /// and which setting mends it. Changes nothing; exit code 1 when there is a problem.
    Check(RawCheck),
}
