//! What an uninstall removes, in the words that it is told in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::facts::PodFacts;
use crate::install::{Change, Folder};
use crate::pod_netns::NodePlace;

/// One thing of ours on the node.
#[derive(Clone, Debug)]
pub(super) enum Thing {
    /// A file of the runtime's configuration, in this folder.
    Conf(Folder, Change),
    /// Pods that say in the API that they are captured.
    Said {
        /// They.
        pods: Vec<PodFacts>,
        /// How long peers are given to learn that it is so no more.
        wait: Duration,
    },
    /// The node's condition in the API.
    Condition,
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
            Self::Conf(folder, Change::Remove { name, .. }) => {
                let path = folder.path().join(name);
                write!(f, "remove network configuration {}", path.display())
            }
            Self::Conf(folder, Change::Write { name, .. }) => {
                let path = folder.path().join(name);
                write!(f, "take sluice-cni out of network configuration {}", path.display())
            }
            Self::Said { pods, wait } => {
                let names: Vec<_> = pods.iter().map(|pod| pod.name.to_string()).collect();
                let names = names.join(", ");
                write!(f, "tell peers that {names} leave the mesh, and wait {wait:?}")
            }
            Self::Condition => f.write_str("remove the node's condition from the API"),
            Self::Pod(place) => write!(
                f,
                "release {}: end its connections through ztunnel, remove rules, policy route and \
                 what conntrack remembers",
                name(place)
            ),
            Self::Host => f.write_str(
                "remove the node's probe rules, tables sluice_host, and \
                 the routes to the probes' source",
            ),
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
