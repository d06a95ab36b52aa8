//! The in-pod listeners: bound here, or given by the node agent.
//!
//! Given ones are shared: the agent holds them too, and an older ztunnel may still accept or
//! read from the same queue. They are therefore closed at the end, never shut down.

mod given;
mod served;

use std::io;
use std::net::{TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netns::{
    Families, FenceError, ListenAny, ListenerFacts, PortUse, Workplace, inspect_datagrams,
    inspect_listener, listen_any,
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use zds::{Carries, ListenAt};

pub use given::{GivenError, GivenListener};
pub(super) use served::Served;

use super::ProxyError;
use super::context::{Ipv6, ProxyContext};
use crate::worker::Worker;

/// Connections that may wait to be accepted; the pod's `somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// Outbound, inbound plaintext and tunnels.
const PORTS: [u16; 3] = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];

/// Where a pod's listeners come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// We bind them.
    ToBind(Claim),
    /// The agent has bound them.
    Given(Vec<GivenListener>),
}

/// Whether a pod's name lookups are answered, and on which sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServer {
    /// The agent does not say: as this ztunnel is configured, on sockets that we bind.
    AsConfigured,
    /// They are not: the agent does not redirect them.
    None,
    /// On those that the agent has bound. Without any, on ones that we bind.
    On(Vec<GivenListener>),
}

impl NameServer {
    /// How ports that we bind are bound: whoever speaks of lookups can be handed the sockets.
    pub(super) fn claim(&self) -> Claim {
        match self {
            Self::AsConfigured | Self::None => Claim::Shared,
            Self::On(_) => Claim::AloneIfFree,
        }
    }
}

/// How ports are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// So that the next ztunnel can bind them too, which is the only way to replace this
    /// one where the agent takes no listeners.
    Shared,
    /// For us alone, unless an older ztunnel holds them and shares.
    AloneIfFree,
}

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

/// A listener that a worker watches. Closed when the last owner drops it.
#[derive(Clone, Debug)]
pub struct OpenListener {
    /// Where it listens.
    pub at: ListenAt,
    /// The listener.
    pub socket: Socket,
    inode: u64,
}

/// The socket of an [`OpenListener`].
#[derive(Clone, Debug)]
pub enum Socket {
    /// It listens.
    Connections(Arc<TcpListener>),
    /// Datagrams come to it.
    Datagrams(Arc<UdpSocket>),
}

/// The listeners of a pod, in the order outbound, inbound plaintext, tunnels.
pub(super) async fn open(
    context: &ProxyContext,
    netns: &Workplace,
    listeners: &Listeners,
    home: &Worker,
) -> Result<Vec<OpenListener>, BindError> {
    match listeners {
        Listeners::ToBind(claim) => {
            let bound = bind(context, netns, *claim, &PORTS).await?;
            bound.into_iter().zip(PORTS).map(|bound| register_bound(bound, home)).collect()
        }
        Listeners::Given(given) => open_given(given, home),
    }
}

/// Only that for tunnels.
pub(super) async fn open_for_tunnels(
    context: &ProxyContext,
    netns: &Workplace,
    home: &Worker,
) -> Result<Option<OpenListener>, BindError> {
    let port = zds::port::INBOUND_HBONE;
    let bound = bind(context, netns, Claim::Shared, &[zds::port::INBOUND_HBONE]).await?;
    bound.into_iter().next().map(|socket| register_bound((socket, port), home)).transpose()
}

pub(super) fn open_given(
    given: &[GivenListener],
    home: &Worker,
) -> Result<Vec<OpenListener>, BindError> {
    let open = |given: &GivenListener| {
        let opened = given.open().and_then(|socket| register(socket, given.at, home));
        opened.map_err(|source| BindError::Listen(given.at.port, source))
    };
    given.iter().map(open).collect()
}

fn register_bound(
    (socket, port): (StdListener, u16),
    home: &Worker,
) -> Result<OpenListener, BindError> {
    let opened = register(socket.into(), ListenAt::any(port), home);
    opened.map_err(|source| BindError::Listen(port, source))
}

/// Has `home` watch the listener.
pub(super) fn register(socket: OwnedFd, at: ListenAt, home: &Worker) -> io::Result<OpenListener> {
    let inode = inspect(at, &socket)?.inode;
    let _entered = home.handle().enter();
    // Whoever opened it may have had other plans than not to wait.
    let socket = match at.carries() {
        Carries::Connections => {
            let listener = StdListener::from(socket);
            listener.set_nonblocking(true)?;
            Socket::Connections(Arc::new(TcpListener::from_std(listener)?))
        }
        Carries::Datagrams => {
            let socket = StdUdp::from(socket);
            socket.set_nonblocking(true)?;
            Socket::Datagrams(Arc::new(UdpSocket::from_std(socket)?))
        }
    };
    Ok(OpenListener { at, socket, inode })
}

fn inspect(at: ListenAt, socket: &OwnedFd) -> io::Result<ListenerFacts> {
    match at.carries() {
        Carries::Connections => inspect_listener(socket),
        Carries::Datagrams => inspect_datagrams(socket),
    }
}

async fn bind(
    context: &ProxyContext,
    netns: &Workplace,
    claim: Claim,
    ports: &'static [u16],
) -> Result<Vec<StdListener>, BindError> {
    let (sender, receiver) = oneshot::channel();
    let settings = &context.settings;
    let families = match settings.ipv6 {
        Ipv6::Enabled => Families::All,
        Ipv6::Disabled => Families::V4,
    };
    let (mark, reuse) = (settings.packet_mark, settings.port_use);
    let job = move || {
        let listen = |&port: &u16| {
            let any = ListenAny { port, families, backlog: BACKLOG, mark, port_use: reuse };
            bind_as(claim, &any).map_err(|source| BindError::Listen(port, source))
        };
        ports.iter().map(listen).collect::<Result<Vec<_>, BindError>>()
    };
    netns
        .submit(&context.fence, job, |result| {
            // A caller that has given up drops the listeners, which closes them.
            let _ = sender.send(result);
        })
        .map_err(BindError::Fence)?;
    let closed = |_| BindError::Fence(FenceError::Closed);
    receiver.await.map_err(closed)?.map_err(BindError::Fence)?
}

fn bind_as(claim: Claim, any: &ListenAny) -> io::Result<StdListener> {
    if claim == Claim::Shared {
        return listen_any(any);
    }
    match listen_any(&ListenAny { port_use: PortUse::Alone, ..*any }) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => listen_any(any),
        bound => bound,
    }
}

impl AsFd for OpenListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Connections(listener) => listener.as_fd(),
            Socket::Datagrams(socket) => socket.as_fd(),
        }
    }
}
