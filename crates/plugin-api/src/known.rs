//! The list that the agent leaves for a plugin that does not reach it.

use serde::{Deserialize, Serialize};

/// Its name, beside the agent's socket.
pub const KNOWN_FILE: &str = "known-outside.json";

/// Largest file of that name, in bytes, that is written and read.
pub const MAX_KNOWN: usize = 256 * 1024;

/// Version of its shape.
pub const KNOWN_VERSION: u32 = 1;

/// Pods of the node that the agent knew to be outside the mesh when it wrote this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownOutside {
    /// [`KNOWN_VERSION`] of the writer.
    pub version: u32,
    /// The boot that it is for (`/proc/sys/kernel/random/boot_id`). After the next one nothing
    /// in it counts, wherever the file was kept.
    pub boot: String,
    /// The pods.
    pub pods: Vec<KnownPod>,
}

/// A pod, by all that never returns and all that people know it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}
