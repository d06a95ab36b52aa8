//! Opens a pod's listeners, inside of it.

use std::io;

use netns::{
    Families, Fence, FenceError, ListenAny, ListenLoopback, LoopbackError, LoopbackSockets,
    PodNetns, PortUse, listen_any, listen_loopback,
};
use zds::{ListenAt, port};

use super::HeldListener;
use crate::inside::inside;

/// Connections that may wait while there is no ztunnel; the pod's `somaxconn` caps it.
pub(super) const BACKLOG: i32 = 4096;

/// What a proxy serves: outbound, inbound plaintext, tunnels.
const PORTS: [u16; 3] = [port::OUTBOUND, port::INBOUND_PLAIN, port::INBOUND_HBONE];

/// Why a pod has no listeners.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its namespace cannot be entered.
    #[error("open the pod's listeners: {0}")]
    Fence(#[from] FenceError),
    /// A port is somebody else's: a ztunnel's that binds it for itself, or an application's.
    #[error("port {0} of the pod is taken")]
    Taken(u16),
    /// The system refused.
    #[error("listen on port {port} of the pod: {source}")]
    Listen {
        /// Which port.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
}

/// Opens listeners in pods.
#[derive(Clone, Debug)]
pub struct Opener {
    fence: Fence,
}

impl Opener {
    /// Uses these fence workers.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self { fence }
    }

    /// All listeners of one pod's proxy, or none.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub async fn open(&self, netns: &PodNetns) -> Result<Vec<HeldListener>, OpenError> {
        inside(&self.fence, netns, || PORTS.into_iter().map(open).collect()).await?
    }

    /// All sockets of one pod's name server, or none: of the address families that it has.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub async fn open_lookups(&self, netns: &PodNetns) -> Result<Vec<HeldListener>, OpenError> {
        inside(&self.fence, netns, open_lookups).await?
    }
}

fn open_lookups() -> Result<Vec<HeldListener>, OpenError> {
    let failed = |source| failed(port::DNS, source);
    let opened = listen_loopback(&ListenLoopback {
        port: port::DNS,
        families: Families::All,
        mark: Some(zds::PACKET_MARK.value),
        port_use: PortUse::Alone,
    });
    let opened = opened.map_err(|LoopbackError { source, .. }| failed(source))?;
    let sockets = opened.into_iter().flat_map(|LoopbackSockets { udp, tcp, .. }| {
        // In the order of the places.
        [udp.into(), tcp.into()]
    });
    let held = ListenAt::LOOKUPS.into_iter().zip(sockets);
    held.map(|(at, socket)| HeldListener::of(at, socket).map_err(failed)).collect()
}

fn open(port: u16) -> Result<HeldListener, OpenError> {
    let any = ListenAny {
        port,
        families: Families::All,
        backlog: BACKLOG,
        mark: Some(zds::PACKET_MARK.value),
        // Shared, an application of the same user could join the port.
        port_use: PortUse::Alone,
    };
    let opened = listen_any(&any).and_then(|it| HeldListener::of(ListenAt::any(port), it.into()));
    opened.map_err(|source| failed(port, source))
}

fn failed(port: u16, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::Taken(port),
        _ => OpenError::Listen { port, source },
    }
}
