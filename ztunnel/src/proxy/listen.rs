//! The in-pod listeners.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};

use netns::{FenceError, Listen, PodNetns, listen_tcp};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::ProxyError;
use super::context::{Ipv6, ProxyContext};

/// Connections that may wait to be accepted; the pod's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

const PORTS: [u16; 3] = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];

/// Linux' "address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

/// Why not; to be completed with the pod's name.
pub(super) enum BindError {
    Fence(FenceError),
    Listen(u16, io::Error),
}

impl BindError {
    pub(super) fn of(self, pod: &str) -> ProxyError {
        let pod = pod.to_owned();
        match self {
            Self::Fence(source) => ProxyError::Fence { pod, source },
            Self::Listen(port, source) => ProxyError::Listen { pod, port, source },
        }
    }
}

/// Binds outbound, inbound plaintext and tunnels, in this order.
pub(super) async fn bind(
    context: &ProxyContext,
    netns: &PodNetns,
) -> Result<[TcpListener; 3], BindError> {
    let (sender, receiver) = oneshot::channel();
    let (ipv6, mark) = (context.settings.ipv6, context.settings.packet_mark);
    let job = move || {
        let [first, second, third] = PORTS
            .map(|port| listen(ipv6, port, mark).map_err(|source| BindError::Listen(port, source)));
        Ok::<_, BindError>([first?, second?, third?])
    };
    context
        .fence
        .submit(netns, job, |result| {
            // A caller that has given up drops the listeners, which closes them.
            let _ = sender.send(result);
        })
        .map_err(BindError::Fence)?;
    let closed = |_| BindError::Fence(FenceError::Closed);
    let [first, second, third] = receiver.await.map_err(closed)?.map_err(BindError::Fence)??;
    let register = |listener, port| {
        TcpListener::from_std(listener).map_err(|source| BindError::Listen(port, source))
    };
    Ok([register(first, PORTS[0])?, register(second, PORTS[1])?, register(third, PORTS[2])?])
}

/// On both families, or on IPv4 only where the kernel has no IPv6.
fn listen(ipv6: Ipv6, port: u16, mark: u32) -> io::Result<StdListener> {
    let on = |addr| listen_tcp(&Listen { addr, backlog: BACKLOG, mark: Some(mark) });
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if ipv6 == Ipv6::Disabled {
        return on(v4);
    }
    on(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(|error| {
        match error.raw_os_error() {
            Some(EAFNOSUPPORT) => on(v4),
            _ => Err(error),
        }
    })
}
