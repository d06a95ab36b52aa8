//! Listeners that change hands: which one a descriptor is.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::contract::port;
use crate::message::{ListenerEntry, ListenerKind};
use crate::wire::Violation;

/// More listeners than any pod has: three of the proxy, four for DNS, and room to grow.
pub const MAX_LISTENERS: usize = 16;

/// Where an in-pod listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAt {
    /// Its port, never 0.
    pub port: u16,
    /// Its protocol and address.
    pub kind: ListenerKind,
}

impl ListenAt {
    /// TCP on every address of the pod.
    #[must_use]
    pub const fn any(port: u16) -> Self {
        Self { port, kind: ListenerKind::TcpAny }
    }

    /// The sockets of a pod's name server: of each address family one for datagrams and one
    /// for connections. A pod without IPv6 has those of IPv4 only, which come first.
    pub const LOOKUPS: [Self; 4] = [
        Self { port: port::DNS, kind: ListenerKind::UdpLoopbackV4 },
        Self { port: port::DNS, kind: ListenerKind::TcpLoopbackV4 },
        Self { port: port::DNS, kind: ListenerKind::UdpLoopbackV6 },
        Self { port: port::DNS, kind: ListenerKind::TcpLoopbackV6 },
    ];

    /// Whether it is a socket of the pod's name server.
    #[must_use]
    pub const fn is_for_lookups(self) -> bool {
        self.port == port::DNS
    }

    /// What it carries.
    #[must_use]
    pub const fn carries(self) -> Carries {
        match self.kind {
            ListenerKind::TcpAny | ListenerKind::TcpLoopbackV4 | ListenerKind::TcpLoopbackV6 => {
                Carries::Connections
            }
            ListenerKind::UdpLoopbackV4 | ListenerKind::UdpLoopbackV6 => Carries::Datagrams,
        }
    }

    /// Whether a socket that is bound to `addr` is here.
    #[must_use]
    pub fn is_at(self, addr: SocketAddr) -> bool {
        let is_there = match self.kind {
            ListenerKind::TcpAny => addr.ip().is_unspecified(),
            ListenerKind::TcpLoopbackV4 | ListenerKind::UdpLoopbackV4 => {
                addr.ip() == Ipv4Addr::LOCALHOST
            }
            ListenerKind::TcpLoopbackV6 | ListenerKind::UdpLoopbackV6 => {
                addr.ip() == Ipv6Addr::LOCALHOST
            }
        };
        is_there && addr.port() == self.port
    }

    /// As the wire has it.
    #[must_use]
    pub fn entry(self) -> ListenerEntry {
        ListenerEntry { port: self.port.into(), kind: self.kind.into() }
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.kind {
            ListenerKind::TcpAny => "tcp *",
            ListenerKind::TcpLoopbackV4 => "tcp 127.0.0.1",
            ListenerKind::TcpLoopbackV6 => "tcp [::1]",
            ListenerKind::UdpLoopbackV4 => "udp 127.0.0.1",
            ListenerKind::UdpLoopbackV6 => "udp [::1]",
        };
        write!(f, "{at}:{}", self.port)
    }
}

/// What comes to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// TCP: it listens, and connections are accepted from it.
    Connections,
    /// UDP: it is bound, and datagrams are read from it.
    Datagrams,
}

/// A listener that came over the link. What it claims to be is for the receiver to check.
#[derive(Debug)]
pub struct GivenListener {
    /// Where it is said to listen.
    pub at: ListenAt,
    /// The descriptor.
    pub fd: OwnedFd,
}

/// The places that a message of `kind` names.
pub(crate) fn places(
    kind: &'static str,
    entries: &[ListenerEntry],
) -> Result<Vec<ListenAt>, Violation> {
    if entries.len() > MAX_LISTENERS {
        return Err(Violation::TooManyListeners { kind, found: entries.len() });
    }
    let mut places: Vec<ListenAt> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = place(*entry).ok_or(Violation::UnknownListener {
            kind,
            port: entry.port,
            code: entry.kind,
        })?;
        if places.contains(&at) {
            return Err(Violation::DoubledListener { kind, at });
        }
        places.push(at);
    }
    Ok(places)
}

fn place(entry: ListenerEntry) -> Option<ListenAt> {
    let port = u16::try_from(entry.port).ok().filter(|port| *port != 0)?;
    Some(ListenAt { port, kind: ListenerKind::try_from(entry.kind).ok()? })
}
