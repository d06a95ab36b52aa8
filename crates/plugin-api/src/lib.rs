//! The contract between the CNI plugin and the node agent: one request, one reply, over
//! a Unix stream socket.
//!
//! ```text
//! plugin ── [u32 big-endian length][JSON Request] (+ netns descriptor on the first byte) ─► agent
//!        ◄─ [u32 big-endian length][JSON Reply] ──────────────────────────────────────────
//! ```
//!
//! A request is a [`Request`] about one pod, a [`StatusRequest`] or a [`GcRequest`]; its
//! `verb` tells which, and [`decode_call`] reads any of them. The descriptor comes with ADD
//! and CHECK only. Both sides refuse a frame of more than [`MAX_FRAME`] bytes. This crate
//! does no IO.

mod frame;
mod known;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use frame::{FrameError, decode, decode_call, decode_length, decode_reply, encode};
pub use known::{KNOWN_FILE, KNOWN_VERSION, KnownOutside, KnownPod, MAX_KNOWN};

/// Version of this contract. A peer with another one answers [`Outcome::Error`] with
/// [`Code::IncompatibleVersion`]; nobody guesses.
pub const VERSION: u32 = 1;

/// Largest JSON body of a frame, in bytes. GC tells all attachments of a node, some hundred
/// bytes each.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Where the agent listens unless the conflist entry says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/sluice/agent/plugin.sock";

/// What the runtime asked the plugin to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// A pod's interface was made; capture the pod if it belongs to the mesh.
    Add,
    /// A pod's interface goes away.
    Del,
    /// Is the pod still as ADD left it?
    Check,
    /// Would an ADD be served now?
    Status,
    /// Let go of attachments that the runtime does not know any more.
    Gc,
}

/// What the plugin asks, once it is known which version of the contract it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// ADD, DEL or CHECK.
    Pod(Request),
    /// STATUS.
    Status,
    /// GC.
    Gc(GcRequest),
}

/// ADD, DEL or CHECK: one call of the plugin about one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What to do.
    pub verb: Verb,
    /// The pod's namespace (`K8S_POD_NAMESPACE`).
    pub namespace: String,
    /// The pod's name (`K8S_POD_NAME`).
    pub name: String,
    /// The pod's UID (`K8S_POD_UID`), where the runtime tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// The network that the interface belongs to (`name` of the configuration): GC is about
    /// one network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `CNI_NETNS`, a hint only: the descriptor is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_path: Option<String>,
    /// The pod's addresses, from prevResult.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
}

/// STATUS: is the agent ready for ADD?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// [`Verb::Status`].
    pub verb: Verb,
}

impl StatusRequest {
    /// Of this version.
    #[must_use]
    pub fn new() -> Self {
        Self { version: VERSION, verb: Verb::Status }
    }
}

impl Default for StatusRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// GC: what the runtime still knows of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// [`Verb::Gc`].
    pub verb: Verb,
    /// `name` of the configuration. Attachments of other networks are not meant.
    pub network: String,
    /// All that are still valid.
    pub valid: Vec<AttachmentKey>,
}

impl GcRequest {
    /// Of this version.
    #[must_use]
    pub fn new(network: String, valid: Vec<AttachmentKey>) -> Self {
        Self { version: VERSION, verb: Verb::Gc, network, valid }
    }
}

/// What tells an attachment from others of the same network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentKey {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// [`VERSION`] of the agent.
    pub version: u32,
    /// What came of the request.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// ADD: the pod is captured and ztunnel serves it. CHECK: it still is.
    Captured,
    /// ADD and CHECK: the pod does not belong to the mesh; nothing was done.
    NotInMesh {
        /// Why not, in words for a log.
        reason: String,
    },
    /// DEL: nothing of the pod is left.
    Done,
    /// STATUS: an ADD would be served.
    Ready {
        /// What an operator should know all the same, in words for a log; empty if nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// GC: nothing is left that the runtime does not know.
    Collected {
        /// How many attachments were let go.
        attachments: usize,
    },
    /// The request failed and left nothing behind.
    Error {
        /// How the runtime should take it.
        code: Code,
        /// One line for `kubectl describe pod`: which step, whose fault, what to do.
        message: String,
        /// More, for whoever reads the runtime's log.
        #[serde(default)]
        details: String,
    },
}

/// How the runtime should take a failure; [`Code::cni`] gives the number that the CNI
/// specification (section "Error") wants on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// Plugin and agent speak different versions of this contract.
    IncompatibleVersion,
    /// The request contradicts itself; trying again will not help.
    InvalidRequest,
    /// The descriptor is not the pod's network namespace.
    InvalidNetns,
    /// CHECK: the pod is not as ADD left it.
    NotCaptured,
    /// A passing fault: the runtime should try again.
    TryAgain,
    /// STATUS: an ADD would not be served.
    NotReady,
    /// STATUS: an ADD would not be served, and pods that run may be impaired.
    NotReadyImpaired,
}

impl Code {
    /// The CNI error code. 8 (invalid network namespace) is libcni's; from 100 on codes
    /// are the plugin's own.
    #[must_use]
    pub fn cni(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 101,
            Self::InvalidRequest => 4,
            Self::InvalidNetns => 8,
            Self::NotCaptured => 102,
            Self::TryAgain => 11,
            Self::NotReady => 50,
            Self::NotReadyImpaired => 51,
        }
    }
}
