//! What a pod does to its node, with the node's processes in sight and its files under `/host`.
//!
//! Harm that lasts is taken back when the input is closed, so that a suite that was killed, or
//! has lost its connection, leaves the node as it was.

mod files;
mod hold;
mod proc;
mod processes;
mod root;

use std::path::PathBuf;

use clap::Subcommand;

pub(crate) use files::{Content, Lists};
pub(crate) use processes::{Counts, Killed};
use root::Root;

/// One thing to look at, or to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Kill processes of a pod at once, and say which.
    Kill(processes::Kill),
    /// Count what pods could leave behind.
    Count(processes::Count),
    /// Say what a file of the node is.
    Read {
        /// Its path on the node.
        path: PathBuf,
    },
    /// Say what the runtime's folder has, in the order in which the runtime takes it.
    Lists {
        /// Its path on the node.
        folder: PathBuf,
    },
    /// Remove files, and what folders have in them.
    Remove {
        /// Their paths on the node, absolute and of at least three names.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Do something to a file until the input is closed; then it is as before, unless somebody
    /// else has written it since.
    Hold(hold::Hold),
}

impl Node {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let root = Root::of_node();
        match self {
            Self::Kill(kill) => super::tell(&kill.run().await?),
            Self::Count(count) => super::tell(&count.run()?),
            Self::Read { path } => super::tell(&files::read(&root, &path)?),
            Self::Lists { folder } => super::tell(&files::lists(&root, &folder)?),
            Self::Remove { paths } => files::remove(&root, &paths),
            Self::Hold(hold) => hold.run(&root).await,
        }
    }
}
