//! Sockets in one pod's namespace.

use std::io;
use std::net::SocketAddr;

use netns::{
    Dial, Families, Fence, FenceError, ListenLoopback, LoopbackError, LoopbackSockets, PortUse,
    Workplace, dial_socket, dial_udp, listen_loopback, original_udp_dst,
};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::proxy::{Claim, Ipv6};

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

/// Makes sockets in a pod, marked where the rules there go by marks. Cloning shares the
/// namespace.
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

    /// Binds what a name server needs: on loopback, of both families where the pod has both.
    ///
    /// # Errors
    /// [`ListenError`]; a pod without IPv6 is none.
    pub async fn listen(
        &self,
        port: u16,
        ipv6: Ipv6,
        (claim, port_use): (Claim, PortUse),
    ) -> Result<Vec<LoopbackSockets>, ListenError> {
        let families = match ipv6 {
            Ipv6::Enabled => Families::All,
            Ipv6::Disabled => Families::V4,
        };
        let listen = ListenLoopback { port, families, mark: self.mark, port_use };
        let bound = self.run(move || bind_as(claim, &listen)).await?;
        bound.map_err(|LoopbackError { addr: address, source }| ListenError::Bind {
            address,
            source,
        })
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

fn bind_as(claim: Claim, listen: &ListenLoopback) -> Result<Vec<LoopbackSockets>, LoopbackError> {
    if claim == Claim::Shared {
        return listen_loopback(listen);
    }
    match listen_loopback(&ListenLoopback { port_use: PortUse::Alone, ..*listen }) {
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => listen_loopback(listen),
        bound => bound,
    }
}
