//! Connecting from inside a pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netns::{Dial, Fence, FenceError, PodNetns, dial_socket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::CONNECT_DEADLINE;
use super::app_socket::tune;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("make a socket in the pod: {0}")]
    Fence(#[from] FenceError),
    #[error("make a socket in the pod: {0}")]
    Socket(#[source] io::Error),
    #[error("connect to {to}: {source}")]
    Connect { to: SocketAddr, source: io::Error },
    #[error("connect to {to}: no answer within {} s{}", .after.as_secs(), hint(.to))]
    Deadline { to: SocketAddr, after: Duration },
}

fn hint(to: &SocketAddr) -> &'static str {
    if to.port() == zds::port::INBOUND_HBONE {
        "; does a network policy block port 15008, which all traffic of the mesh uses?"
    } else {
        ""
    }
}

/// Makes marked sockets in one pod's namespace.
#[derive(Debug)]
pub(super) struct Dialer {
    fence: Fence,
    netns: PodNetns,
    mark: u32,
}

impl Dialer {
    pub(super) fn new(fence: Fence, netns: PodNetns, mark: u32) -> Self {
        Self { fence, netns, mark }
    }

    /// Connects with the pod's own address.
    pub(super) async fn dial(&self, to: SocketAddr) -> Result<TcpStream, DialError> {
        self.connect(Dial {
            to,
            mark: Some(self.mark),
            from: None,
        })
        .await
    }

    /// Connects to the pod's application with the address of `client`, whatever port. A
    /// client at the same address needs no pretence.
    pub(super) async fn dial_as(
        &self,
        client: IpAddr,
        to: SocketAddr,
    ) -> Result<TcpStream, DialError> {
        let from = (client != to.ip()).then(|| SocketAddr::new(client, 0));
        self.connect(Dial {
            to,
            mark: Some(self.mark),
            from,
        })
        .await
    }

    async fn connect(&self, dial: Dial) -> Result<TcpStream, DialError> {
        let to = dial.to;
        timeout(CONNECT_DEADLINE, self.connect_unbounded(dial))
            .await
            .unwrap_or(Err(DialError::Deadline {
                to,
                after: CONNECT_DEADLINE,
            }))
    }

    async fn connect_unbounded(&self, dial: Dial) -> Result<TcpStream, DialError> {
        let (sender, receiver) = oneshot::channel();
        self.fence.submit(
            &self.netns,
            move || dial_socket(&dial),
            |result| {
                // A caller that has given up drops the socket.
                let _ = sender.send(result);
            },
        )?;
        let socket = receiver.await.map_err(|_| FenceError::Closed)??;
        let socket = socket.map_err(DialError::Socket)?;
        let failed = |source| DialError::Connect {
            to: dial.to,
            source,
        };
        let tcp = TcpSocket::from_std_stream(socket.into())
            .connect(dial.to)
            .await;
        let tcp = tcp.map_err(failed)?;
        tune(&tcp).map_err(failed)?;
        Ok(tcp)
    }
}
