//! Sockets in one pod's namespace.

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcp, UdpSocket as StdUdp,
};

use netns::{
    Dial, Fence, FenceError, Listen, Workplace, dial_socket, dial_udp, listen_tcp, listen_udp,
    original_udp_dst,
};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::proxy::Ipv6;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Bytes of datagrams that may wait to be read; some hundred lookups.
const DATAGRAMS: usize = 1 << 20;

/// Linux' "address family not supported by protocol" and "cannot assign requested
/// address": no IPv6 in this kernel, or not in this pod.
const NO_IPV6: [i32; 2] = [97, 99];

/// Why there is no name server in a pod.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The runtime does not take them.
    #[error("listen for name lookups: {0}")]
    Register(#[source] io::Error),
    /// An address is not ours. "Address in use" means that an application, or another
    /// proxy, holds it.
    #[error("listen for name lookups on {address}: {source}")]
    Bind {
        /// Which one.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// The listening sockets of a pod's name server: one of each for IPv4, and for IPv6 where
/// the pod has it. Never on a wildcard address: lookups of others are not answered.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For datagrams.
    pub udp: Vec<StdUdp>,
    /// For connections.
    pub tcp: Vec<StdTcp>,
}

/// Makes sockets in a pod. Cloning shares the namespace.
#[derive(Clone, Debug)]
pub struct Sockets {
    fence: Fence,
    netns: Workplace,
    mark: Option<u32>,
}

impl Sockets {
    /// Sockets in `netns` whose packets carry `mark`, if there is one.
    #[must_use]
    pub fn new(fence: Fence, netns: Workplace, mark: Option<u32>) -> Self {
        Self { fence, netns, mark }
    }

    /// Binds what a name server needs.
    ///
    /// # Errors
    /// [`ListenError`]; a pod without IPv6 is none.
    pub async fn listen(&self, port: u16, ipv6: Ipv6) -> Result<Listeners, ListenError> {
        let mark = self.mark;
        self.run(move || bind(port, ipv6, mark)).await?
    }

    /// A socket for one exchange with `to`, from a random port.
    pub(super) async fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let mark = self.mark;
        let socket = self.run(move || dial_udp(to, mark)).await.map_err(io::Error::other)??;
        UdpSocket::from_std(socket)
    }

    /// A connection to `to`.
    pub(super) async fn tcp(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let dial = Dial { to, mark: self.mark, from: None };
        let socket = self.run(move || dial_socket(&dial)).await.map_err(io::Error::other)??;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// Where `client` had addressed the datagram that came to `listener`. `None` when
    /// conntrack has forgotten it, or cannot be asked.
    pub(super) async fn asked(
        &self,
        client: SocketAddr,
        listener: SocketAddr,
    ) -> Option<SocketAddr> {
        let found = self.run(move || original_udp_dst(client, listener)).await;
        found.ok()?.ok().map(|dst| dst.0)
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, FenceError> {
        let (sender, receiver) = oneshot::channel();
        self.netns.submit(&self.fence, job, |result| {
            // A caller that has given up drops the socket.
            let _ = sender.send(result);
        })?;
        receiver.await.map_err(|_| FenceError::Closed)?
    }
}

fn bind(port: u16, ipv6: Ipv6, mark: Option<u32>) -> Result<Listeners, ListenError> {
    let mut listeners = Listeners::default();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let address = SocketAddr::new(ip, port);
        if ip.is_ipv6() && ipv6 == Ipv6::Disabled {
            continue;
        }
        let udp = match listen_udp(address, mark, DATAGRAMS) {
            Err(error) if ip.is_ipv6() && is_no_ipv6(&error) => continue,
            result => result.map_err(|source| ListenError::Bind { address, source })?,
        };
        let tcp = listen_tcp(&Listen { addr: address, backlog: BACKLOG, mark })
            .map_err(|source| ListenError::Bind { address, source })?;
        listeners.udp.push(udp);
        listeners.tcp.push(tcp);
    }
    Ok(listeners)
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&code))
}
