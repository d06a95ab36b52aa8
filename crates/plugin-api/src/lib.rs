//! The contract between the CNI plugin and the node agent: one request, one reply, over
//! a Unix stream socket.
//!
//! ```text
//! plugin ── [u32 big-endian length][JSON Request] (+ netns descriptor on the first byte) ─► agent
//!        ◄─ [u32 big-endian length][JSON Reply] ──────────────────────────────────────────
//! ```
//!
//! The descriptor comes with ADD and CHECK, never with DEL. Both sides refuse a frame
//! of more than [`MAX_FRAME`] bytes. This crate does no IO.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Version of this contract. A peer with another one answers [`Outcome::Error`] with
/// [`Code::IncompatibleVersion`]; nobody guesses.
pub const VERSION: u32 = 1;

/// Largest JSON body of a frame, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

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
}

/// One call of the plugin by the container runtime.
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
    /// `CNI_NETNS`, a hint only: the descriptor is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_path: Option<String>,
    /// The pod's addresses, from prevResult.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
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
        }
    }
}

/// How a frame broke the contract.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix exceeds [`MAX_FRAME`].
    #[error("frame of {0} bytes exceeds {MAX_FRAME}")]
    TooLong(usize),
    /// The body is no JSON of the expected shape.
    #[error("malformed frame: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Renders a message with its length prefix.
///
/// # Errors
/// [`FrameError::TooLong`] when the peer would refuse it.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let length = body_length(body.len())?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Reads the length prefix: how many bytes of body follow.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn decode_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    body_length(length)?;
    Ok(length)
}

/// Reads a body.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

fn body_length(length: usize) -> Result<u32, FrameError> {
    match u32::try_from(length) {
        Ok(fits) if length <= MAX_FRAME => Ok(fits),
        _ => Err(FrameError::TooLong(length)),
    }
}
