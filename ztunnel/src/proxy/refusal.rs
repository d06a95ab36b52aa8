//! Why a connection is closed on purpose.

use std::net::SocketAddr;

use http::StatusCode;
use mesh::{Denial, Uid};

use super::limits::Full;
use crate::route;
use crate::telemetry::{Failure, ResponseFlags};

/// The reasons, each with a stable name for counters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("connection was not redirected here: the proxy's ports must not be dialled")]
    NotRedirected,
    #[error("the view of the mesh is not complete; is the control plane reachable?")]
    ViewIncomplete,
    #[error("the pod is not in the view of the mesh; does the control plane know it?")]
    UnknownWorkload,
    #[error("destination is one of the proxy's own ports, which applications must not dial")]
    ProxyPort,
    #[error("what the control plane sent about {0} was rejected: it may want a tunnel")]
    RejectedDestination(Uid),
    #[error("policy: {0}")]
    Denied(Denial),
    #[error("request is no CONNECT")]
    NotConnect,
    #[error("authority \"{0}\" is not ip:port")]
    Authority(String),
    #[error("target {0} is not this pod")]
    ForeignTarget(SocketAddr),
    #[error("no certificate for the pod: {0}")]
    NoCertificate(String),
    #[error("peer could not prove who it is: {0}")]
    Handshake(String),
    #[error("the pod has reached its limit of {0}")]
    Full(Full),
    #[error("ztunnel is out of file descriptors; is its limit too low for this node?")]
    Descriptors,
    #[error("client has gone before its connection was taken")]
    Abandoned,
}

impl From<route::Refusal> for Refusal {
    fn from(refusal: route::Refusal) -> Self {
        match refusal {
            route::Refusal::ProxyPort => Self::ProxyPort,
            route::Refusal::RejectedDestination(uid) => Self::RejectedDestination(uid),
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl Refusal {
    /// Label of the counter.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NotRedirected => "not_redirected",
            Self::ViewIncomplete => "view_incomplete",
            Self::UnknownWorkload => "unknown_workload",
            Self::ProxyPort => "proxy_port",
            Self::RejectedDestination(_) => "rejected_destination",
            Self::Denied(Denial::Unknown(_)) => "policy_unknown",
            Self::Denied(Denial::Rejected(_)) => "policy_rejected",
            Self::Denied(_) => "policy",
            Self::NotConnect => "not_connect",
            Self::Authority(_) => "bad_authority",
            Self::ForeignTarget(_) => "foreign_target",
            Self::NoCertificate(_) => "no_certificate",
            Self::Handshake(_) => "handshake",
            Self::Full(full) => full.name(),
            Self::Descriptors => "descriptors",
            Self::Abandoned => "abandoned",
        }
    }

    /// May it turn out otherwise, once more is known?
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ViewIncomplete | Self::UnknownWorkload | Self::Denied(Denial::Unknown(_))
        )
    }

    /// What a peer is told.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::NotConnect
            | Self::Authority(_)
            | Self::ForeignTarget(_)
            | Self::ProxyPort
            | Self::NotRedirected => StatusCode::BAD_REQUEST,
            Self::ViewIncomplete
            | Self::UnknownWorkload
            | Self::RejectedDestination(_)
            | Self::NoCertificate(_)
            | Self::Handshake(_)
            | Self::Full(_)
            | Self::Descriptors
            | Self::Abandoned => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn failure(&self) -> Failure {
        let flags = match self {
            Self::Denied(_) => ResponseFlags::Deny,
            Self::NoCertificate(_) => ResponseFlags::IdentityError,
            Self::Handshake(_) => ResponseFlags::TlsFailure,
            _ => ResponseFlags::None,
        };
        Failure { flags, text: self.to_string() }
    }
}
