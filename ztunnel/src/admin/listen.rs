//! The three sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netns::{Listen, listen_tcp};
use tokio::net::TcpListener;

use super::serve::Servers;

/// Operators and probes are few.
const BACKLOG: i32 = 128;

/// Where to listen. An IPv6 wildcard serves both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// State and shutdown: for this machine only.
    pub admin: SocketAddr,
    /// The same on the other family's loopback, where the kernel has it.
    pub admin_v6: Option<SocketAddr>,
    /// Metrics.
    pub metrics: SocketAddr,
    /// Readiness.
    pub ready: SocketAddr,
}

/// A port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr} for {what}: {source}{}", hint(.source, .addr))]
pub struct BindError {
    what: &'static str,
    addr: SocketAddr,
    source: io::Error,
}

/// Opens the sockets in ztunnel's own namespace.
///
/// # Errors
/// [`BindError`] names the port that could not be had.
pub fn bind(settings: &Settings) -> Result<Servers, BindError> {
    Ok(Servers {
        admin: listen("administration", settings.admin)?,
        admin_v6: settings.admin_v6.map(listen_v6).transpose()?.flatten(),
        metrics: listen("metrics", settings.metrics)?,
        ready: listen("readiness", settings.ready)?,
    })
}

/// `None` where the kernel has no IPv6.
fn listen_v6(addr: SocketAddr) -> Result<Option<TcpListener>, BindError> {
    match listen("administration", addr) {
        Err(error) if lacks_ipv6(&error.source) => Ok(None),
        result => result.map(Some),
    }
}

fn listen(what: &'static str, addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen_any(addr).and_then(TcpListener::from_std).map_err(|source| BindError {
        what,
        addr,
        source,
    })
}

/// Where the kernel has no IPv6, the IPv4 wildcard serves as well.
fn listen_any(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listen = |addr| listen_tcp(&Listen { addr, backlog: BACKLOG, mark: None });
    match listen(addr) {
        Err(error) if addr.ip() == IpAddr::from([0u16; 8]) && lacks_ipv6(&error) => {
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port()))
        }
        result => result,
    }
}

/// Without the protocol there is no such family, and with the protocol switched off by
/// sysctl no such address.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Linux' number, which the standard library has no kind for.
const EAFNOSUPPORT: i32 = 97;

fn hint(error: &io::Error, addr: &SocketAddr) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        let port = addr.port();
        format!(" (another ztunnel or a sidecar in this namespace? ss -ltnp 'sport = :{port}')")
    } else {
        String::new()
    }
}
