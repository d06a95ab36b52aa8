//! The contract between the node agent and ztunnel: which ports and marks a captured
//! pod uses, the ZDS messages, the rules of a session, and the packet framing.
//!
//! A session runs over a Unix `SOCK_SEQPACKET` socket. The agent listens, ztunnel
//! connects and speaks first:
//!
//! ```text
//! ztunnel ── Hello{V1} ──────────────► agent
//!         ◄── Add{uid, info} + netns fd ── (for each captured pod)
//!         ── Ack ───────────────────►
//!         ◄── Keep{uid} ────────────── (pod known, no descriptor at hand)
//!         ── Ack ───────────────────►
//!         ◄── SnapshotSent ───────────
//!         ── Ack ───────────────────►
//!         ◄── Add / Del ────────────── (as pods come and go; one in flight)
//! ```
//!
//! One protobuf message is one packet, at most [`MAX_MESSAGE`] bytes. The wire format is
//! that of Istio ambient's ztunnel, so either end may be theirs.
//!
//! Sluice's own two ends hand listening sockets over, so that connections wait in the
//! kernel while a ztunnel is replaced, see [`FEATURE_LISTENERS`]:
//!
//! ```text
//! ztunnel ── Hello{V1, features} ──────────────────► agent
//!         ◄── Add{uid, info, listeners, lookups} + netns fd + one fd each ──
//!         ── Ack ──────────────────────────────────►
//! after a restart of the agent:
//!         ◄── Add{uid, info, lookups} + netns fd, or Keep{uid}; features ──
//!         ── Ack{listeners, has_netns} + netns fd + one fd each ─►
//! ```
//!
//! The sockets of the pods' name servers came later, see [`FEATURE_LOOKUPS`]. A ztunnel
//! that does not announce them binds its own, and an agent that does not ask for them is
//! not given them.

mod contract;
mod given;
pub mod link;
mod message;
mod wire;

pub use contract::{
    CONNMARK, DEFAULT_SOCKET, Mark, PACKET_MARK, PROXY_PORTS, PolicyRoute, ROUTE, port,
};
pub use given::{Carries, GivenListener, ListenAt, MAX_LISTENERS};
pub use message::{
    Ack, AddWorkload, DelWorkload, FEATURE_LISTENERS, FEATURE_LOOKUPS, Hello, KeepWorkload,
    ListenerEntry, ListenerKind, Lookups, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, workload_request, workload_response,
};
pub use wire::{
    GiveBack, MAX_MESSAGE, Request, Returned, Violation, Workload, decode_hello, decode_request,
    decode_response, encode,
};
