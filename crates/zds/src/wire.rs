//! What a packet must be: pure rules over bytes and the descriptors that came with them.

use std::os::fd::OwnedFd;

use prost::Message;

use crate::message::{
    Hello, Version, WorkloadInfo, WorkloadRequest, WorkloadResponse, workload_request::Payload,
    workload_response,
};

/// Both ends read into a buffer of this size; a larger packet is an error.
pub const MAX_MESSAGE: usize = 1024;

/// Who a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The pod's UID.
    pub uid: String,
    /// Who it is.
    pub info: WorkloadInfo,
}

/// A request that obeys the protocol, with its descriptor where one belongs.
#[derive(Debug)]
pub enum Request {
    /// Serve this workload in this network namespace.
    Add(Workload, OwnedFd),
    /// The workload still exists; nothing else is known.
    Keep(String),
    /// Stop serving the workload.
    Del(String),
    /// The snapshot is complete.
    SnapshotSent,
}

/// How a packet broke the protocol. The session ends; running pods do not.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// The packet did not fit the buffer of [`MAX_MESSAGE`] bytes.
    #[error("packet longer than {MAX_MESSAGE} bytes was cut off")]
    Truncated,
    /// More descriptors arrived than there was room for; all were closed.
    #[error("descriptors of the packet were cut off")]
    DescriptorsTruncated,
    /// The bytes are no protobuf of the expected type.
    #[error("undecodable {what}: {source}")]
    Decode {
        /// The message type that was expected.
        what: &'static str,
        /// Where decoding stopped.
        source: prost::DecodeError,
    },
    /// A message without a payload, or with one of a later version.
    #[error("{0} without a known payload")]
    NoPayload(&'static str),
    /// `add` carries exactly one descriptor, every other message none.
    #[error("{kind} carried {found} descriptors, {expected} expected")]
    DescriptorCount {
        /// The message's kind.
        kind: &'static str,
        /// How many came.
        found: usize,
        /// How many belong to it.
        expected: usize,
    },
    /// `add` without saying who the workload is.
    #[error("add of workload {0} without workload_info")]
    NoInfo(String),
    /// A message without a pod UID.
    #[error("{0} without a uid")]
    NoUid(&'static str),
    /// The peer speaks another version.
    #[error("peer announced version {0}, only version 1 is spoken here")]
    Version(i32),
    /// A message that would exceed [`MAX_MESSAGE`]; it was not sent.
    #[error("message of {0} bytes exceeds {MAX_MESSAGE}")]
    TooLong(usize),
}

/// Encodes `message` as the bytes of one packet.
///
/// # Errors
/// [`Violation::TooLong`] when the peer could not read it.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, Violation> {
    let bytes = message.encode_to_vec();
    if bytes.len() > MAX_MESSAGE {
        return Err(Violation::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Reads the first packet of a session, on the agent's side.
///
/// # Errors
/// Any [`Violation`]; the session cannot start.
pub fn decode_hello(bytes: &[u8], fds: &[OwnedFd]) -> Result<Hello, Violation> {
    let hello =
        Hello::decode(bytes).map_err(|source| Violation::Decode { what: "hello", source })?;
    expect_fds("hello", fds, 0)?;
    if hello.version != Version::V1 as i32 {
        return Err(Violation::Version(hello.version));
    }
    Ok(hello)
}

/// Reads a request, on ztunnel's side. Descriptors that do not belong are closed.
///
/// # Errors
/// Any [`Violation`].
pub fn decode_request(bytes: &[u8], mut fds: Vec<OwnedFd>) -> Result<Request, Violation> {
    let request = WorkloadRequest::decode(bytes)
        .map_err(|source| Violation::Decode { what: "workload request", source })?;
    let payload = request.payload.ok_or(Violation::NoPayload("workload request"))?;
    match payload {
        Payload::Add(add) => {
            expect_fds("add", &fds, 1)?;
            let uid = expect_uid("add", add.uid)?;
            let info = add.workload_info.ok_or_else(|| Violation::NoInfo(uid.clone()))?;
            let fd = fds.pop().expect("the count was checked above");
            Ok(Request::Add(Workload { uid, info }, fd))
        }
        Payload::Keep(keep) => {
            expect_fds("keep", &fds, 0)?;
            expect_uid("keep", keep.uid).map(Request::Keep)
        }
        Payload::Del(del) => {
            expect_fds("del", &fds, 0)?;
            expect_uid("del", del.uid).map(Request::Del)
        }
        Payload::SnapshotSent(_) => {
            expect_fds("snapshot_sent", &fds, 0)?;
            Ok(Request::SnapshotSent)
        }
    }
}

/// Reads an answer, on the agent's side: `Ok(Err(text))` is ztunnel's own refusal.
///
/// # Errors
/// Any [`Violation`].
pub fn decode_response(bytes: &[u8], fds: &[OwnedFd]) -> Result<Result<(), String>, Violation> {
    let response = WorkloadResponse::decode(bytes)
        .map_err(|source| Violation::Decode { what: "workload response", source })?;
    expect_fds("ack", fds, 0)?;
    let workload_response::Payload::Ack(ack) =
        response.payload.ok_or(Violation::NoPayload("workload response"))?;
    Ok(if ack.error.is_empty() { Ok(()) } else { Err(ack.error) })
}

fn expect_fds(kind: &'static str, fds: &[OwnedFd], expected: usize) -> Result<(), Violation> {
    if fds.len() == expected {
        Ok(())
    } else {
        Err(Violation::DescriptorCount { kind, found: fds.len(), expected })
    }
}

fn expect_uid(kind: &'static str, uid: String) -> Result<String, Violation> {
    if uid.is_empty() { Err(Violation::NoUid(kind)) } else { Ok(uid) }
}
