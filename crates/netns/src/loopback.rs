//! The sockets of an in-pod name server: on loopback, never on a wildcard address, so that
//! lookups of others are not answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::errno::Errno;

use crate::datagram::listen_udp;
use crate::listener::Families;
use crate::socket::{Listen, listen_tcp};

/// Connections that may wait to be accepted; the namespace's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// Bytes of datagrams that may wait to be read; some hundred lookups.
const DATAGRAMS: usize = 1 << 20;

/// No IPv6 in this kernel, or not in this namespace.
const NO_IPV6: [Errno; 2] = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];

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

/// Listens on `port` of the calling thread's namespace for connections and datagrams, for
/// nobody else: on `127.0.0.1`, and on `::1` where the namespace has it. What they send
/// carries `mark`. The sockets are non-blocking and close-on-exec.
///
/// # Errors
/// [`LoopbackError`]; a namespace without IPv6 is none.
pub fn listen_loopback(
    port: u16,
    families: Families,
    mark: Option<u32>,
) -> Result<Vec<LoopbackSockets>, LoopbackError> {
    let ips: &[IpAddr] = match families {
        Families::All => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        Families::V4 => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let mut listening = Vec::with_capacity(ips.len());
    for addr in ips.iter().map(|ip| SocketAddr::new(*ip, port)) {
        match on(addr, mark) {
            Ok(sockets) => listening.push(sockets),
            Err(error) if addr.is_ipv6() && is_no_ipv6(&error) => {}
            Err(source) => return Err(LoopbackError { addr, source }),
        }
    }
    Ok(listening)
}

fn on(addr: SocketAddr, mark: Option<u32>) -> io::Result<LoopbackSockets> {
    let udp = listen_udp(addr, mark, DATAGRAMS)?;
    let tcp = listen_tcp(&Listen { addr, backlog: BACKLOG, mark })?;
    Ok(LoopbackSockets { addr, udp, tcp })
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&Errno::from_raw(code)))
}
