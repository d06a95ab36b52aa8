//! What is known of a connection when it begins.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::{Identity, Service, Workload};

/// Which end of a connection this ztunnel speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's node.
    Source,
    /// The server's node.
    Destination,
}

/// As seen from the pod that the connection was captured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Toward the pod.
    Inbound,
    /// Away from the pod.
    Outbound,
}

impl Direction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How the bytes travel between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// In a tunnel whose both ends proved an identity.
    MutualTls,
    /// In clear text.
    Plain,
}

/// One end of a connection, as far as it is known.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address, in the mesh's terms: never that of a ztunnel.
    pub addr: SocketAddr,
    /// Which workload has that address, or which the peer says it is where the address
    /// cannot tell.
    pub workload: Option<Arc<Workload>>,
    /// Who it is; on the far side only what a certificate proved.
    pub identity: Option<Identity>,
}

/// A tunnel, from one ztunnel to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where it ends: the peer's or our own port for tunnels.
    pub peer: SocketAddr,
    /// What is asked for there.
    pub target: Box<str>,
}

/// The facts of a connection when it begins.
#[derive(Clone, Debug)]
pub struct ConnectionOpen {
    /// Which end reports.
    pub reporter: Reporter,
    /// Seen from the captured pod.
    pub direction: Direction,
    /// Who dialled.
    pub src: Endpoint,
    /// Whom it reaches.
    pub dst: Endpoint,
    /// The service by which it was dialled, if by one.
    pub service: Option<Arc<Service>>,
    /// The address that was dialled, before anybody chose a workload for it.
    pub dialled: SocketAddr,
    /// The tunnel that carries the connection.
    pub hop: Option<Hop>,
    /// How the bytes travel.
    pub security: Security,
}

impl ConnectionOpen {
    /// The end that is a pod of this node.
    pub(super) fn own(&self) -> &Endpoint {
        match self.direction {
            Direction::Inbound => &self.dst,
            Direction::Outbound => &self.src,
        }
    }
}
