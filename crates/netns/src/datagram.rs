//! UDP sockets as an in-pod name server needs them. These functions act on the calling
//! thread's namespace: call them from a fence job.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{SetSockOpt as _, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::listener::PortUse;

/// Binds a non-blocking, close-on-exec socket to exactly this address.
///
/// `buffer` is what the kernel may keep for it until it is read, in bytes. Without
/// `CAP_NET_ADMIN` the host's limit (`net.core.rmem_max`) caps it.
///
/// # Errors
/// As `bind(2)`; `EADDRINUSE` when an application holds the port, `EADDRNOTAVAIL` for
/// `::1` where IPv6 is switched off.
pub fn listen_udp(addr: SocketAddr, mark: Option<u32>, buffer: usize) -> io::Result<UdpSocket> {
    bind_udp(addr, mark, buffer, PortUse::Alone)
}

pub(crate) fn bind_udp(
    addr: SocketAddr,
    mark: Option<u32>,
    buffer: usize,
    port_use: PortUse,
) -> io::Result<UdpSocket> {
    let socket = udp_socket(addr, mark)?;
    if port_use == PortUse::Shared {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if sockopt::RcvBufForce.set(&socket, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A non-blocking, close-on-exec socket that hears `to` only, from a port that the kernel
/// chose at random.
///
/// # Errors
/// As `connect(2)`: `ENETUNREACH` without a route.
pub fn dial_udp(to: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let socket = udp_socket(to, mark)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn udp_socket(addr: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}
