//! What an uninstall removes, in the words that it is told in.

use std::fmt;
use std::path::PathBuf;

use crate::install::undo::{Becomes, Change};
use crate::pod_netns::NodePlace;

/// One thing of ours on the node.
#[derive(Clone, Debug)]
pub(super) enum Thing {
    /// A file of the runtime's configuration.
    Conf(Change),
    /// A pod with rules of ours.
    Pod(NodePlace),
    /// The host's probe rules.
    Host,
    /// The plugin's program.
    Program(PathBuf),
    /// A file or socket of the agent.
    File(PathBuf),
    /// Its directory.
    Folder(PathBuf),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conf(Change { path, becomes: Becomes::Nothing }) => {
                write!(f, "remove network configuration {}", path.display())
            }
            Self::Conf(Change { path, becomes: Becomes::Text(_) }) => {
                write!(f, "take sluice-cni out of network configuration {}", path.display())
            }
            Self::Pod(place) => write!(
                f,
                "release {}: end its connections through ztunnel, remove rules, policy route and \
                 what conntrack remembers",
                name(place)
            ),
            Self::Host => f.write_str("remove the node's probe rules, tables sluice_host"),
            Self::Program(path) => write!(f, "remove plugin {}", path.display()),
            Self::File(path) => write!(f, "remove {}", path.display()),
            Self::Folder(path) => write!(f, "remove directory {}", path.display()),
        }
    }
}

/// A pod, as well as anybody on the node can tell.
pub(super) fn name(place: &NodePlace) -> String {
    let netns = place.netns.id();
    match (&place.name, place.pods.first()) {
        (Some(name), _) => format!("pod {name} (network namespace {netns})"),
        (None, Some(uid)) => format!("the pod with UID {uid} (network namespace {netns})"),
        (None, None) => format!("an unnamed pod (network namespace {netns})"),
    }
}
