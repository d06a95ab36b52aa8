//! The in-pod listeners: bound here, or given by the node agent.
//!
//! Given ones are shared: the agent holds them too, and an older ztunnel may still accept
//! from the same queue. They are therefore closed at the end, never shut down.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use netns::{
    Families, FenceError, ListenAny, PodNetns, PortUse, Workplace, inspect_listener, listen_any,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use zds::{ListenAt, ListenerKind};

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

/// How ports are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// So that the next ztunnel can bind them too, which is the only way to replace this
    /// one where the agent takes no listeners.
    Shared,
    /// For us alone, unless an older ztunnel holds them and shares.
    AloneIfFree,
}

/// A listener from the agent, looked at and found to be what it was said to be.
#[derive(Clone, Debug)]
pub struct GivenListener {
    pub(crate) at: ListenAt,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) inode: u64,
}

impl PartialEq for GivenListener {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.inode) == (other.at, other.inode)
    }
}

impl Eq for GivenListener {}

/// Why a pod cannot be served on a descriptor.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It is something else.
    #[error("given listener {at}: {source}")]
    NotAListener {
        /// What it was said to be.
        at: ListenAt,
        /// What it is.
        source: io::Error,
    },
    /// It listens at another place.
    #[error("given listener {at} is one of {found}")]
    Elsewhere {
        /// What it was said to be.
        at: ListenAt,
        /// Where it listens.
        found: std::net::SocketAddr,
    },
    /// It is another pod's.
    #[error("given listener {0} lives in another network namespace than the pod")]
    OtherNetns(ListenAt),
    /// One is missing.
    #[error("listeners were given, but none of port {0}")]
    Missing(u16),
}

impl GivenListener {
    /// Looks at what came with a pod in `netns`. Listeners that no proxy serves are closed.
    ///
    /// # Errors
    /// [`GivenError`]; the pod cannot be served on them.
    pub fn check(
        given: Vec<zds::GivenListener>,
        netns: &PodNetns,
    ) -> Result<Vec<Self>, GivenError> {
        let ours = |at: ListenAt| at.kind == ListenerKind::TcpAny && PORTS.contains(&at.port);
        let given: Vec<_> = given
            .into_iter()
            .filter(|given| ours(given.at))
            .map(|given| Self::check_one(given, netns))
            .collect::<Result<_, _>>()?;
        let missing = PORTS.iter().find(|port| given.iter().all(|given| given.at.port != **port));
        missing.map_or(Ok(given), |port| Err(GivenError::Missing(*port)))
    }

    fn check_one(given: zds::GivenListener, netns: &PodNetns) -> Result<Self, GivenError> {
        let at = given.at;
        let facts = inspect_listener(&given.fd)
            .map_err(|source| GivenError::NotAListener { at, source })?;
        if facts.addr.port() != at.port || !facts.addr.ip().is_unspecified() {
            return Err(GivenError::Elsewhere { at, found: facts.addr });
        }
        // Without cookies the agent's word has to do.
        let (socket, pod) = (facts.netns_cookie, netns.id().cookie);
        if socket.zip(pod).is_some_and(|(socket, pod)| socket != pod) {
            return Err(GivenError::OtherNetns(at));
        }
        Ok(Self { at, socket: Arc::new(given.fd), inode: facts.inode })
    }

    fn open(&self) -> io::Result<StdListener> {
        let listener = StdListener::from(self.socket.try_clone()?);
        // Whoever opened it may have had other plans.
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
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
    pub socket: Arc<TcpListener>,
    inode: u64,
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
            let register = |(socket, port)| register(socket, port, home);
            bound.into_iter().zip(PORTS).map(register).collect()
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
    bound.into_iter().next().map(|socket| register(socket, port, home)).transpose()
}

pub(super) fn open_given(
    given: &[GivenListener],
    home: &Worker,
) -> Result<Vec<OpenListener>, BindError> {
    let open = |given: &GivenListener| {
        let port = given.at.port;
        register(given.open().map_err(|source| BindError::Listen(port, source))?, port, home)
    };
    given.iter().map(open).collect()
}

/// Has `home` watch the listener.
fn register(socket: StdListener, port: u16, home: &Worker) -> Result<OpenListener, BindError> {
    let failed = |source| BindError::Listen(port, source);
    let inode = inspect_listener(&socket).map_err(failed)?.inode;
    let _entered = home.handle().enter();
    let socket = Arc::new(TcpListener::from_std(socket).map_err(failed)?);
    Ok(OpenListener { at: ListenAt::any(port), socket, inode })
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

/// What a pod is served on, as long as somebody accepts there.
#[derive(Debug, Default)]
pub(super) struct Served(Vec<ServedListener>);

#[derive(Debug)]
struct ServedListener {
    at: ListenAt,
    inode: u64,
    socket: Weak<TcpListener>,
}

impl Served {
    pub(super) fn note(&mut self, listener: &OpenListener) {
        let OpenListener { at, socket, inode } = listener;
        self.0.push(ServedListener { at: *at, inode: *inode, socket: Arc::downgrade(socket) });
    }

    pub(super) fn has(&self, given: &GivenListener) -> bool {
        self.0.iter().any(|served| {
            served.inode == given.inode && served.at == given.at && served.socket.strong_count() > 0
        })
    }

    /// The newest of each port.
    pub(super) fn newest(&self) -> Vec<OpenListener> {
        let of = |port: u16| {
            let mut served = self.0.iter().rev().filter(move |served| served.at.port == port);
            served.find_map(|&ServedListener { at, inode, ref socket }| {
                Some(OpenListener { at, socket: socket.upgrade()?, inode })
            })
        };
        PORTS.into_iter().filter_map(of).collect()
    }
}

impl AsFd for OpenListener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
