//! What the plugin told about one pod.

use std::net::IpAddr;
use std::path::PathBuf;

use netns::NetnsId;
use serde::{Deserialize, Serialize};

use crate::facts::{PodName, PodUid};

/// One attachment of one pod, enough to find its namespace again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Which pod.
    pub uid: PodUid,
    /// Where it stands in the API.
    pub name: PodName,
    /// The sandbox, as the runtime numbers it. A pod may get another one.
    pub container_id: String,
    /// The interface that was made.
    pub ifname: String,
    /// The network that it belongs to, where the plugin has told.
    #[serde(default)]
    pub network: Option<String>,
    /// Where the namespace could be opened.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// What tells the namespace from others.
    pub netns: StoredId,
    /// The pod's addresses.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
}

impl Record {
    /// Whether both tell about one namespace of one sandbox.
    #[must_use]
    pub fn is_same_sandbox(&self, other: &Self) -> bool {
        self.container_id == other.container_id && self.netns == other.netns
    }

    /// With the addresses of one more interface.
    #[must_use]
    pub fn joined(mut self, ips: Vec<IpAddr>) -> Self {
        let more: Vec<_> = ips.into_iter().filter(|ip| !self.ips.contains(ip)).collect();
        self.ips.extend(more);
        self
    }
}

/// A [`NetnsId`] that outlives its descriptor, so it says for which boot it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredId {
    /// Device of the inode.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// The kernel's own number.
    pub cookie: Option<u64>,
    /// The boot in which this was observed.
    pub boot: String,
}

impl StoredId {
    /// Makes an id fit for storage.
    #[must_use]
    pub fn new(id: NetnsId, boot: &str) -> Self {
        Self { dev: id.dev, ino: id.ino, cookie: id.cookie, boot: boot.to_owned() }
    }

    /// The id, for whoever has checked the boot.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        NetnsId { dev: self.dev, ino: self.ino, cookie: self.cookie }
    }
}
