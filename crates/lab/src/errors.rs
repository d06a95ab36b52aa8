//! Why a lab, or the mesh in it, does not come up.

use std::io;
use std::path::PathBuf;

use crate::net::NetError;
use crate::part::PartError;
use crate::services::ServicesError;

/// Why a lab could not be started. What had been made is removed again.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The options ask for something that a lab cannot be.
    #[error("a lab has 1 to 9 nodes, not {0}")]
    Nodes(u8),
    /// A folder or file could not be written.
    #[error("lab folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No thread could be started that enters namespaces.
    #[error(transparent)]
    Fence(#[from] netns::FenceError),
    /// The network could not be built; most often because this is not root.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The Kubernetes API or control did not start.
    #[error(transparent)]
    Services(#[from] ServicesError),
}

/// Why the mesh is not up.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The lab was started without an implementation under test.
    #[error("this lab has no subject: its options name none")]
    NoSubject,
    /// ztunnel has no token.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// A process did not start or does not get ready.
    #[error(transparent)]
    Part(#[from] PartError),
}
