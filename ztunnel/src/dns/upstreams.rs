//! ztunnel's own resolvers.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

/// Where the system says which they are.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// More are not tried: three is what the C library takes.
const MOST: usize = 3;

const PORT: u16 = 53;

/// Resolvers in the order in which they are asked. Cloning shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams(Arc<[SocketAddr]>);

impl Upstreams {
    /// Those in the `resolv.conf` of this process: in Kubernetes the ones that the kubelet
    /// gives to ztunnel's own pod.
    ///
    /// # Errors
    /// As reading the file.
    pub fn system() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string(RESOLV_CONF)?))
    }

    /// These.
    #[must_use]
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self(servers.into())
    }

    /// Reads the `nameserver` lines (resolv.conf(5)); what cannot be understood is left
    /// out, as the C library does it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let servers = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| server(words.next()?))?
        });
        Self(servers.take(MOST).collect())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// A scope is believed as a number only: names of interfaces are other ones in a pod.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = text.split_once('%') {
        let scoped = SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope.parse().ok()?);
        return Some(scoped.into());
    }
    Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT))
}
