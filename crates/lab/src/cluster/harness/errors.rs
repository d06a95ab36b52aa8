//! Why a cluster is not up.

use std::io;
use std::path::PathBuf;

use netns::{FenceError, NetnsError};

use super::control_plane::FurnishError;
use super::{ExecError, KubectlError, ToolError};
use crate::net::NetError;
use crate::patience::TimedOut;
use crate::process::ProcessError;

/// Why a cluster is not up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The options ask for something that a cluster cannot be.
    #[error("{0}")]
    Options(String),
    /// One of that name is there.
    #[error("cluster {0} exists already; remove it with scripts/cluster down {0}")]
    Exists(String),
    /// A folder, file or mount.
    #[error("{step}: {source}")]
    Disk {
        /// What was tried.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A machine's files or programs.
    #[error(transparent)]
    Furnish(#[from] FurnishError),
    /// Certificates.
    #[error("certificates of the cluster: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A process could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A command on a machine.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// kubectl.
    #[error(transparent)]
    Kubectl(#[from] KubectlError),
    /// A namespace could not be entered.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// A namespace could not be found.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The network could not be built.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A step takes too long.
    #[error("{late}, last: {last}\n{quoted}")]
    Late {
        /// What was waited for, and how long.
        late: TimedOut,
        /// Why it was not there when last looked at.
        last: String,
        /// The end of the log of the program at fault.
        quoted: String,
    },
    /// An object of the primary CNI or of the name server was refused.
    #[error("the API refuses an object of the cluster: {0}")]
    Object(String),
    /// An image could not be imported.
    #[error("{node} cannot import {archive}: {said}")]
    Image {
        /// Which node.
        node: String,
        /// Which file.
        archive: PathBuf,
        /// What the runtime said.
        said: String,
    },
}

impl From<ToolError> for UpError {
    fn from(error: ToolError) -> Self {
        Self::Furnish(error.into())
    }
}
