//! What is dialled, and what is asked for there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::ServiceKey;

/// Something to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This.
    Address(SocketAddr),
    /// Whatever the name means in the pod at this moment.
    Resolve {
        /// To be looked up.
        hostname: Arc<str>,
        /// Port there.
        port: u16,
    },
}

/// What a tunnel's request asks for; its text is the `:authority`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// An address: of the destination, or, of a waypoint, what the application dialled.
    Address(SocketAddr),
    /// A service by name, in another network.
    Name {
        /// The service.
        host: ServiceKey,
        /// Its port.
        port: u16,
    },
    /// The address that [`Place::Resolve`] leads to, with another port; no request can be
    /// made until [`Tunnel::resolved`](super::Tunnel::resolved).
    Resolve {
        /// To be looked up.
        hostname: Arc<str>,
        /// The destination's port.
        port: u16,
    },
}

impl Place {
    /// The name that has to be looked up first.
    #[must_use]
    pub fn unresolved(&self) -> Option<&Arc<str>> {
        match self {
            Self::Address(_) => None,
            Self::Resolve { hostname, .. } => Some(hostname),
        }
    }

    /// The same, with the name replaced by what it means.
    #[must_use]
    pub fn resolved(self, ip: IpAddr) -> Self {
        match self {
            Self::Address(addr) => Self::Address(addr),
            Self::Resolve { port, .. } => Self::Address(SocketAddr::new(ip.to_canonical(), port)),
        }
    }

    /// The same place at another port.
    pub(super) fn with_port(self, port: u16) -> Self {
        match self {
            Self::Address(addr) => Self::Address(SocketAddr::new(addr.ip(), port)),
            Self::Resolve { hostname, .. } => Self::Resolve { hostname, port },
        }
    }
}

impl Authority {
    /// The address of a place.
    pub(super) fn of(place: &Place) -> Self {
        match place {
            Place::Address(addr) => Self::Address(*addr),
            Place::Resolve { hostname, port } => {
                Self::Resolve { hostname: Arc::clone(hostname), port: *port }
            }
        }
    }

    /// The same, with a name to be resolved replaced by what it means.
    pub(super) fn resolved(self, ip: IpAddr) -> Self {
        match self {
            Self::Resolve { port, .. } => Self::Address(SocketAddr::new(ip.to_canonical(), port)),
            known => known,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Resolve { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{}:{port}", host.hostname()),
            Self::Resolve { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}
