//! Listening sockets on every address of a pod, and what a descriptor that claims to be
//! one really is. Sockets are made in the calling thread's namespace: from a fence job.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::socket::{Listen, cookie_of};

/// Linux' "address family not supported by protocol": a kernel without IPv6.
const EAFNOSUPPORT: i32 = 97;

/// The address families that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Both where the kernel has IPv6, IPv4 where it has not.
    All,
    /// IPv4.
    V4,
}

/// Whether other sockets of the same user may listen on the port too (`SO_REUSEPORT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortUse {
    /// Nobody else.
    Alone,
    /// Who asks for it as well.
    Shared,
}

/// A listening socket on every address of its namespace.
#[derive(Clone, Copy, Debug)]
pub struct ListenAny {
    /// The port.
    pub port: u16,
    /// The families it serves.
    pub families: Families,
    /// Length of the accept queue, capped by the namespace's `somaxconn`.
    pub backlog: i32,
    /// `SO_MARK` for the listener and what it accepts.
    pub mark: Option<u32>,
    /// Who else may have the port.
    pub port_use: PortUse,
}

/// Binds and listens; the socket is non-blocking and close-on-exec.
///
/// # Errors
/// As `bind(2)` and `listen(2)`; `EADDRINUSE` when somebody holds the port.
pub fn listen_any(listen: &ListenAny) -> io::Result<TcpListener> {
    let on = |ip: std::net::IpAddr| {
        let addr = SocketAddr::new(ip, listen.port);
        let at = Listen { addr, backlog: listen.backlog, mark: listen.mark };
        bind_tcp(&at, listen.port_use)
    };
    let v4 = Ipv4Addr::UNSPECIFIED.into();
    if listen.families == Families::V4 {
        return on(v4);
    }
    on(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| match error.raw_os_error() {
        Some(EAFNOSUPPORT) => on(v4),
        _ => Err(error),
    })
}

pub(crate) fn bind_tcp(listen: &Listen, port_use: PortUse) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen.addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if port_use == PortUse::Shared {
        socket.set_reuse_port(true)?;
    }
    if listen.addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if let Some(mark) = listen.mark {
        socket.set_mark(mark)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.addr.into())?;
    socket.listen(listen.backlog)?;
    Ok(socket.into())
}

/// Lets others of the same user listen on the port of a socket that has it already, if
/// they ask for it as well (`SO_REUSEPORT`).
///
/// # Errors
/// As `setsockopt(2)`.
pub fn share_port(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).set_reuse_port(true)
}

/// Whether a TCP socket listens. One that did may have been ended from outside
/// (`SOCK_DESTROY`, as `ss -K` does) while its descriptor stayed open.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    SockRef::from(socket).is_listener()
}

/// Has a TCP socket listen again that was ended from outside. It still has its address, and
/// every duplicate of its descriptor hears of new connections again. Connections that had
/// waited in it are gone.
///
/// # Errors
/// As `connect(2)` and `listen(2)`; `EADDRINUSE` when somebody else listens there meanwhile.
pub fn listen_again(socket: &impl AsFd, backlog: i32) -> io::Result<()> {
    disconnect(socket)?;
    SockRef::from(socket).listen(backlog)
}

/// Connecting to nowhere (`AF_UNSPEC`) takes back that the socket was shut down when it was
/// ended.
fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or_default(),
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap_or_default();
    #[expect(unsafe_code, reason = "nix and socket2 connect to addresses only")]
    // SAFETY: the pointer is to a live local of `length` bytes, which is only read.
    let status = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a socket is that others open connections to, or send datagrams to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// Where it is bound.
    pub addr: SocketAddr,
    /// What tells the socket from every other that is open now; duplicates of one
    /// descriptor share it.
    pub inode: u64,
    /// The namespace that it lives in, see [`NetnsId::cookie`](crate::NetnsId::cookie).
    pub netns_cookie: Option<u64>,
}

/// Looks at a descriptor that somebody else has opened.
///
/// # Errors
/// `InvalidInput` when it is no TCP socket that listens.
pub fn inspect_listener(fd: &impl AsFd) -> io::Result<ListenerFacts> {
    let socket = SockRef::from(fd);
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let kind = (socket.r#type(), socket.protocol());
    if !matches!(kind, (Ok(Type::STREAM), Ok(Some(Protocol::TCP)))) {
        return Err(wrong("the descriptor is no TCP socket"));
    }
    if !socket.is_listener()? {
        return Err(wrong("the socket does not listen"));
    }
    facts(fd)
}

/// The same for datagrams.
///
/// # Errors
/// `InvalidInput` when it is no UDP socket that is bound and hears everybody.
pub fn inspect_datagrams(fd: &impl AsFd) -> io::Result<ListenerFacts> {
    let socket = SockRef::from(fd);
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let kind = (socket.r#type(), socket.protocol());
    if !matches!(kind, (Ok(Type::DGRAM), Ok(Some(Protocol::UDP)))) {
        return Err(wrong("the descriptor is no UDP socket"));
    }
    if socket.peer_addr().is_ok() {
        return Err(wrong("the socket hears one peer only"));
    }
    let facts = facts(fd)?;
    if facts.addr.port() == 0 {
        return Err(wrong("the socket is not bound"));
    }
    Ok(facts)
}

fn facts(fd: &impl AsFd) -> io::Result<ListenerFacts> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket");
    let addr = SockRef::from(fd).local_addr()?.as_socket().ok_or_else(wrong)?;
    let inode = fstat(fd.as_fd())?.st_ino;
    Ok(ListenerFacts { addr, inode, netns_cookie: cookie_of(fd) })
}
