//! Opens a pod's listeners, inside of it.

use std::io;

use netns::{Families, Fence, FenceError, ListenAny, PodNetns, PortUse, listen_any};
use zds::ListenAt;

use super::HeldListener;
use crate::inside::inside;

/// Connections that may wait while there is no ztunnel; the pod's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// What a ztunnel serves: outbound, inbound plaintext, tunnels. DNS listeners are its own:
/// nobody waits for an answer as long as a ztunnel takes to come.
const PORTS: [u16; 3] = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];

/// Why a pod has no listeners.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its namespace cannot be entered.
    #[error("open the pod's listeners: {0}")]
    Fence(#[from] FenceError),
    /// A port is somebody else's: a ztunnel's that binds for itself, or an application's.
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

    /// All listeners of one pod, or none.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub async fn open(&self, netns: &PodNetns) -> Result<Vec<HeldListener>, OpenError> {
        inside(&self.fence, netns, || PORTS.into_iter().map(open).collect()).await?
    }
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
    let opened =
        listen_any(&any).and_then(|listener| HeldListener::of(ListenAt::any(port), listener));
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::Taken(port),
        _ => OpenError::Listen { port, source },
    })
}
