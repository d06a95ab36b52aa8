//! What a lab is asked to be.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where labs keep their folders unless told otherwise.
pub const DEFAULT_ROOT: &str = "/run/sluice-lab";

/// Settings of one lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes, 1 to 9: one digit keeps link names short.
    pub nodes: u8,
    /// Address families of the pods. The wire between the nodes always has both.
    pub family: Family,
    /// The implementation under test; without one the lab is a cluster without a mesh.
    pub subject: Option<Subject>,
    /// How long anything observable may take: the one deadline of a lab.
    pub patience: Duration,
    /// `RUST_LOG` of the subject's processes.
    pub log_level: String,
    /// The folder under which each lab makes its own.
    pub root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            family: Family::V4,
            subject: None,
            patience: Duration::from_secs(20),
            log_level: "info".into(),
            root: DEFAULT_ROOT.into(),
        }
    }
}

/// Address families that pods get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

/// The implementation under test.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The node agent's binary.
    pub node_agent: PathBuf,
    /// The ztunnel binary.
    pub ztunnel: PathBuf,
    /// The folder that holds the plugin binary, `sluice-cni`.
    pub cni_plugin_dir: PathBuf,
}
