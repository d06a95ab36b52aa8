//! What a packet must be: pure rules over bytes and the descriptors that came with them.

use std::os::fd::OwnedFd;

use prost::Message;

use crate::given::{GivenListener, ListenAt, places};
use crate::message::{
    AddWorkload, FEATURE_LISTENERS, FEATURE_LOOKUPS, Hello, Lookups, Version, WorkloadInfo,
    WorkloadRequest, WorkloadResponse, workload_request::Payload, workload_response,
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

/// Which listeners the answer to a request is to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBack {
    /// None: the agent has them, or could not take them.
    NotAsked,
    /// Those of the proxy.
    Proxy,
    /// Those of the pod's name server.
    Lookups,
    /// All.
    All,
}

impl GiveBack {
    /// What an agent asks for that sends these features and brings these listeners: nobody
    /// asks for what he has.
    fn asked(features: u32, brought: &[ListenAt]) -> Self {
        let has = |lookups: bool| brought.iter().any(|at| at.is_for_lookups() == lookups);
        let proxy = features & FEATURE_LISTENERS != 0 && !has(false);
        let lookups = features & FEATURE_LOOKUPS != 0 && !has(true);
        match (proxy, lookups) {
            (false, false) => Self::NotAsked,
            (true, false) => Self::Proxy,
            (false, true) => Self::Lookups,
            (true, true) => Self::All,
        }
    }

    /// How the agent asks, see [`WorkloadRequest::features`].
    #[must_use]
    pub const fn features(self) -> u32 {
        match self {
            Self::NotAsked => 0,
            Self::Proxy => FEATURE_LISTENERS,
            Self::Lookups => FEATURE_LOOKUPS,
            Self::All => FEATURE_LISTENERS | FEATURE_LOOKUPS,
        }
    }

    /// Whether this listener is one of them.
    #[must_use]
    pub const fn takes(self, at: ListenAt) -> bool {
        match self {
            Self::NotAsked => false,
            Self::Proxy => !at.is_for_lookups(),
            Self::Lookups => at.is_for_lookups(),
            Self::All => true,
        }
    }
}

/// A request that obeys the protocol, with its descriptors where some belong.
#[derive(Debug)]
pub enum Request {
    /// Serve this workload in this network namespace, on these listeners; without any,
    /// ztunnel opens its own.
    Add {
        /// Who it is.
        workload: Workload,
        /// The namespace.
        netns: OwnedFd,
        /// The listeners, each place once.
        listeners: Vec<GivenListener>,
        /// What becomes of its name lookups.
        lookups: Lookups,
        /// Never asks for what came with it.
        give_back: GiveBack,
    },
    /// The workload still exists; nothing else is known.
    Keep(String, GiveBack),
    /// Stop serving the workload.
    Del(String),
    /// The snapshot is complete.
    SnapshotSent,
}

/// What an answer gives back; most often nothing.
#[derive(Debug, Default)]
pub struct Returned {
    /// The pod's network namespace.
    pub netns: Option<OwnedFd>,
    /// Its listeners, each place once.
    pub listeners: Vec<GivenListener>,
}

impl Returned {
    /// Whether it gives nothing back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.netns.is_none() && self.listeners.is_empty()
    }
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
    /// A message carries one descriptor for each thing that it names: the namespace of
    /// `add`, and each listener.
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
    /// A listener that nobody can tell the place of.
    #[error("{kind} names no listener: port {port}, kind {code}")]
    UnknownListener {
        /// The message's kind.
        kind: &'static str,
        /// The port it names.
        port: u32,
        /// The kind it names.
        code: i32,
    },
    /// Two listeners at one place.
    #[error("{kind} names the listener {at} twice")]
    DoubledListener {
        /// The message's kind.
        kind: &'static str,
        /// Where.
        at: ListenAt,
    },
    /// More listeners than [`MAX_LISTENERS`](crate::MAX_LISTENERS).
    #[error("{kind} names {found} listeners, more than a pod can have")]
    TooManyListeners {
        /// The message's kind.
        kind: &'static str,
        /// How many.
        found: usize,
    },
    /// A refusal gives nothing back.
    #[error("an ack with an error names listeners or a network namespace")]
    RefusalWithListeners,
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
pub fn decode_request(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Request, Violation> {
    let request = WorkloadRequest::decode(bytes)
        .map_err(|source| Violation::Decode { what: "workload request", source })?;
    let payload = request.payload.ok_or(Violation::NoPayload("workload request"))?;
    let features = request.features;
    match payload {
        Payload::Add(add) => decode_add(add, features, fds),
        Payload::Keep(keep) => {
            expect_fds("keep", &fds, 0)?;
            let give_back = GiveBack::asked(features, &[]);
            Ok(Request::Keep(expect_uid("keep", keep.uid)?, give_back))
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
/// Descriptors that do not belong are closed.
///
/// # Errors
/// Any [`Violation`].
pub fn decode_response(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<Result<Returned, String>, Violation> {
    let response = WorkloadResponse::decode(bytes)
        .map_err(|source| Violation::Decode { what: "workload response", source })?;
    let workload_response::Payload::Ack(ack) =
        response.payload.ok_or(Violation::NoPayload("workload response"))?;
    if !ack.error.is_empty() {
        expect_fds("ack with an error", &fds, 0)?;
        if ack.has_netns || !ack.listeners.is_empty() {
            return Err(Violation::RefusalWithListeners);
        }
        return Ok(Err(ack.error));
    }
    let places = places("ack", &ack.listeners)?;
    expect_fds("ack", &fds, places.len() + usize::from(ack.has_netns))?;
    let mut fds = fds.into_iter();
    let netns = if ack.has_netns { fds.next() } else { None };
    Ok(Ok(Returned { netns, listeners: pair(places, fds) }))
}

fn decode_add(add: AddWorkload, features: u32, fds: Vec<OwnedFd>) -> Result<Request, Violation> {
    let places = places("add", &add.listeners)?;
    let give_back = GiveBack::asked(features, &places);
    // Of a later version, perhaps: then as if it had not been said.
    let lookups = Lookups::try_from(add.lookups).unwrap_or(Lookups::Unspecified);
    expect_fds("add", &fds, 1 + places.len())?;
    let uid = expect_uid("add", add.uid)?;
    let info = add.workload_info.ok_or_else(|| Violation::NoInfo(uid.clone()))?;
    let mut fds = fds.into_iter();
    let netns = fds.next().expect("the count was checked above");
    let listeners = pair(places, fds);
    Ok(Request::Add { workload: Workload { uid, info }, netns, listeners, lookups, give_back })
}

fn pair(places: Vec<ListenAt>, fds: impl Iterator<Item = OwnedFd>) -> Vec<GivenListener> {
    places.into_iter().zip(fds).map(|(at, fd)| GivenListener { at, fd }).collect()
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
