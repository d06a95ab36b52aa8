//! The sockets of an in-pod name server: on loopback, never on a wildcard address, so that
//! lookups of others are not answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::errno::Errno;

use crate::datagram::bind_udp;
use crate::listener::{Families, PortUse, bind_tcp};
use crate::socket::Listen;

/// Connections that may wait to be accepted; the namespace's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// Bytes of datagrams that may wait to be read; some hundred lookups.
const DATAGRAMS: usize = 1 << 20;

/// No IPv6 in this kernel, or not in this namespace.
const NO_IPV6: [Errno; 2] = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];

/// The sockets of a name server to be.
#[derive(Clone, Copy, Debug)]
pub struct ListenLoopback {
    /// The port.
    pub port: u16,
    /// The families it serves.
    pub families: Families,
    /// `SO_MARK` for what the sockets send.
    pub mark: Option<u32>,
    /// Who else may have the port.
    pub port_use: PortUse,
}

/// What listens on one loopback address.
#[derive(Debug)]
pub struct LoopbackSockets {
    /// Where.
    pub addr: SocketAddr,
    /// For datagrams.
    pub udp: UdpSocket,
    /// For connections.
    pub tcp: TcpListener,
}

/// Why not.
#[derive(Debug)]
pub struct LoopbackError {
    /// Where.
    pub addr: SocketAddr,
    /// The system's answer; `EADDRINUSE` when somebody holds the port.
    pub source: io::Error,
}

/// Listens in the calling thread's namespace for connections and datagrams: on `127.0.0.1`,
/// and on `::1` where the namespace has it. The sockets are non-blocking and close-on-exec.
///
/// # Errors
/// [`LoopbackError`]; a namespace without IPv6 is none.
pub fn listen_loopback(listen: &ListenLoopback) -> Result<Vec<LoopbackSockets>, LoopbackError> {
    let ips: &[IpAddr] = match listen.families {
        Families::All => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        Families::V4 => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let mut listening = Vec::with_capacity(ips.len());
    for addr in ips.iter().map(|ip| SocketAddr::new(*ip, listen.port)) {
        match on(addr, listen) {
            Ok(sockets) => listening.push(sockets),
            Err(error) if addr.is_ipv6() && is_no_ipv6(&error) => {}
            Err(source) => return Err(LoopbackError { addr, source }),
        }
    }
    Ok(listening)
}

fn on(addr: SocketAddr, listen: &ListenLoopback) -> io::Result<LoopbackSockets> {
    let &ListenLoopback { mark, port_use, .. } = listen;
    let udp = bind_udp(addr, mark, DATAGRAMS, port_use)?;
    let tcp = bind_tcp(&Listen { addr, backlog: BACKLOG, mark }, port_use)?;
    Ok(LoopbackSockets { addr, udp, tcp })
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&Errno::from_raw(code)))
}
