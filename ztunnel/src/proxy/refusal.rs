//! Why a connection is closed on purpose.

use std::net::SocketAddr;

use http::StatusCode;
use mesh::Denial;

use super::limits::Full;
use crate::route;
use crate::source::LookupError;
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
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("destination is one of the proxy's own ports, which applications must not dial")]
    ProxyPort,
    #[error(transparent)]
    Route(route::Refusal),
    #[error("destination is known by name only: {0}")]
    Unresolved(String),
    #[error("policy: {0}")]
    Denied(Denial),
    #[error("request is no CONNECT")]
    NotConnect,
    #[error("authority \"{0}\" is neither ip:port nor hostname:port")]
    Authority(String),
    #[error("target {0} is not this pod")]
    ForeignTarget(SocketAddr),
    #[error("requested service is not served here: {0}")]
    Unserved(String),
    #[error("port {0} of this pod is not open to the mesh")]
    ClosedPort(u16),
    #[error("no certificate for the pod: {0}")]
    NoCertificate(String),
    #[error("peer could not prove who it is: {0}")]
    Handshake(String),
    #[error("peer's certificate is revoked: {0}")]
    Revoked(String),
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
            other => Self::Route(other),
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
            Self::Lookup(_) => "lookup",
            Self::ProxyPort => "proxy_port",
            Self::Route(refusal) => refusal.name(),
            Self::Unresolved(_) => "unresolved",
            Self::Denied(Denial::Unknown(_)) => "policy_unknown",
            Self::Denied(Denial::Rejected(_)) => "policy_rejected",
            Self::Denied(_) => "policy",
            Self::NotConnect => "not_connect",
            Self::Authority(_) => "bad_authority",
            Self::ForeignTarget(_) => "foreign_target",
            Self::Unserved(_) => "unserved",
            Self::ClosedPort(_) => "closed_port",
            Self::NoCertificate(_) => "no_certificate",
            Self::Handshake(_) => "handshake",
            Self::Revoked(_) => "revoked",
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
            | Self::Lookup(_)
            | Self::Route(_)
            | Self::Unresolved(_)
            | Self::Unserved(_)
            | Self::ClosedPort(_)
            | Self::NoCertificate(_)
            | Self::Handshake(_)
            | Self::Revoked(_)
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
            Self::Revoked(_) => ResponseFlags::CertRevoked,
            _ => ResponseFlags::None,
        };
        Failure { flags, text: self.to_string() }
    }
}
