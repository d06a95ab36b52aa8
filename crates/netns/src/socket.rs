//! Sockets as in-pod proxies need them. These functions act on the calling thread's
//! namespace: call them from a fence job.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{SetSockOpt as _, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::listener::{PortUse, bind_tcp};

/// Linux' `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h), which libc does not name.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A listening socket to be.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Address to bind; `[::]` serves both families.
    pub addr: SocketAddr,
    /// Length of the accept queue, capped by the namespace's `somaxconn`.
    pub backlog: i32,
    /// `SO_MARK` for the listener and what it accepts.
    pub mark: Option<u32>,
}

/// An outgoing socket to be.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// Where it will connect to; decides the family.
    pub to: SocketAddr,
    /// `SO_MARK` for its packets.
    pub mark: Option<u32>,
    /// Connect from this address though it is not ours (`IP_TRANSPARENT`). A port of 0
    /// lets the kernel choose one.
    pub from: Option<SocketAddr>,
}

/// The destination that an application dialled, before redirection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

impl fmt::Display for OrigDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Binds and listens; the socket is non-blocking and close-on-exec.
///
/// # Errors
/// As `bind(2)` and `listen(2)`; `EADDRINUSE` when an application holds the port.
pub fn listen_tcp(listen: &Listen) -> io::Result<TcpListener> {
    bind_tcp(listen, PortUse::Alone)
}

/// Makes a non-blocking socket, ready for `connect(2)`.
///
/// # Errors
/// As `socket(2)`, `setsockopt(2)` and `bind(2)`; `EPERM` names a missing
/// `CAP_NET_ADMIN`.
pub fn dial_socket(dial: &Dial) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(dial.to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mark) = dial.mark {
        socket.set_mark(mark)?;
    }
    if let Some(from) = dial.from {
        if from.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
        if from.port() == 0 {
            // Chosen at connect(2), a port can serve many destinations; chosen at bind(2),
            // it would serve one connection, and a busy client would use them up.
            sockopt::IpBindAddressNoPort.set(&socket, &true)?;
        }
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

/// Asks conntrack where a redirected connection was going to (`SO_ORIGINAL_DST`, and its
/// IPv6 counterpart). For a connection that was not redirected the kernel returns the
/// socket's own address: the caller must refuse its own ports.
///
/// # Errors
/// `ENOENT` when conntrack does not know the connection.
pub fn original_dst(accepted: &impl AsFd) -> io::Result<OrigDst> {
    let socket = SockRef::from(accepted);
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    // A dual-stack listener sees IPv4 peers as mapped addresses; conntrack knows them as
    // IPv4 connections.
    let found = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    let addr = found.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok(OrigDst(SocketAddr::new(addr.ip().to_canonical(), addr.port())))
}

/// The kernel's number of the calling thread's namespace; `None` before Linux 5.14.
pub(crate) fn netns_cookie() -> Option<u64> {
    cookie_of(&Socket::new(Domain::UNIX, Type::DGRAM, None).ok()?)
}

/// The kernel's number of the namespace that a socket lives in.
pub(crate) fn cookie_of(socket: &impl AsFd) -> Option<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    #[expect(unsafe_code, reason = "neither nix nor socket2 knows SO_NETNS_COOKIE")]
    // SAFETY: the pointers are to live locals, and `length` is the size of the first.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (status == 0).then_some(cookie)
}
