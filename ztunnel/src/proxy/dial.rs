//! Connecting from inside a pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netns::{Dial, VisitError, Workplace};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::CONNECT_DEADLINE;
use super::app_socket::AppSocket;
use super::context::SourceAddress;
use super::pod::PodShared;
use crate::telemetry::Step;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("make a socket in the pod: {0}")]
    Visit(#[from] VisitError),
    #[error("make a socket in the pod: out of file descriptors")]
    Descriptors,
    #[error("prepare a socket in the pod: {0}")]
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

/// Where a pod's outgoing sockets are made, and which address they may bear. They are marked
/// where the rules there go by marks.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) netns: Workplace,
    pub(super) source_address: SourceAddress,
}

impl PodShared {
    /// Connects to a peer, with the pod's own address.
    pub(super) async fn dial_peer(&self, to: SocketAddr) -> Result<TcpStream, DialError> {
        let begun = Instant::now();
        let tcp = within_deadline(to, self.connect(None, to, |_| Ok(()))).await?;
        self.context.telemetry.took(Step::ConnectPeer, begun.elapsed());
        Ok(tcp)
    }

    /// Connects to an application, with the address of `client`, whatever port, where
    /// one is given. A client at the same address needs no pretence.
    pub(super) async fn dial_app(
        &self,
        client: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<AppSocket, DialError> {
        // An application has accepted before we hear of it: from the first moment on,
        // what is given up must reset.
        let begun = Instant::now();
        let dialled = self.connect(client, to, TcpSocket::set_zero_linger);
        let tcp = within_deadline(to, dialled).await?;
        self.context.telemetry.took(Step::ConnectApplication, begun.elapsed());
        Ok(AppSocket::new(tcp))
    }

    async fn connect(
        &self,
        client: Option<IpAddr>,
        to: SocketAddr,
        prepare: impl FnOnce(&TcpSocket) -> io::Result<()>,
    ) -> Result<TcpStream, DialError> {
        let (dialer, settings) = (&self.dialer, &self.context.settings);
        let from = client
            .filter(|ip| dialer.source_address == SourceAddress::Client && *ip != to.ip())
            .map(|ip| SocketAddr::new(ip, 0));
        let mark = settings.packet_mark;
        let socket = dialer.netns.dial_socket(&Dial { to, mark, from })?;
        if !self.may_keep(&socket) {
            self.short_of_descriptors();
            return Err(DialError::Descriptors);
        }
        let socket = TcpSocket::from_std_stream(socket.into());
        prepare(&socket).map_err(DialError::Socket)?;
        let failed = |source| DialError::Connect { to, source };
        let tcp = socket.connect(to).await.map_err(failed)?;
        settings.tcp.apply(&tcp).map_err(failed)?;
        Ok(tcp)
    }
}

async fn within_deadline(
    to: SocketAddr,
    dialled: impl Future<Output = Result<TcpStream, DialError>>,
) -> Result<TcpStream, DialError> {
    timeout(CONNECT_DEADLINE, dialled)
        .await
        .unwrap_or(Err(DialError::Deadline { to, after: CONNECT_DEADLINE }))
}
