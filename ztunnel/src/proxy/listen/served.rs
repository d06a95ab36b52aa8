//! What a pod is served on.

use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, UdpSocket};
use zds::ListenAt;

use super::{GivenListener, OpenListener, PORTS, Socket};

/// What a pod is served on, as long as somebody accepts or reads there.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Served(Vec<ServedListener>);

#[derive(Debug)]
struct ServedListener {
    at: ListenAt,
    inode: u64,
    socket: WeakSocket,
}

#[derive(Debug)]
enum WeakSocket {
    Connections(Weak<TcpListener>),
    Datagrams(Weak<UdpSocket>),
}

impl WeakSocket {
    fn upgrade(&self) -> Option<Socket> {
        match self {
            Self::Connections(socket) => socket.upgrade().map(Socket::Connections),
            Self::Datagrams(socket) => socket.upgrade().map(Socket::Datagrams),
        }
    }
}

impl Served {
    pub(in crate::proxy) fn note(&mut self, listener: &OpenListener) {
        let OpenListener { at, socket, inode } = listener;
        let socket = match socket {
            Socket::Connections(socket) => WeakSocket::Connections(Arc::downgrade(socket)),
            Socket::Datagrams(socket) => WeakSocket::Datagrams(Arc::downgrade(socket)),
        };
        self.0.retain(|served| served.socket.upgrade().is_some());
        self.0.push(ServedListener { at: *at, inode: *inode, socket });
    }

    pub(in crate::proxy) fn has(&self, given: &GivenListener) -> bool {
        self.0.iter().any(|served| {
            served.inode == given.inode
                && served.at == given.at
                && served.socket.upgrade().is_some()
        })
    }

    /// The newest of each place.
    pub(in crate::proxy) fn newest(&self) -> Vec<OpenListener> {
        let at = |place: ListenAt| {
            let mut served = self.0.iter().rev().filter(move |served| served.at == place);
            served.find_map(|&ServedListener { at, inode, ref socket }| {
                Some(OpenListener { at, socket: socket.upgrade()?, inode })
            })
        };
        PORTS.map(ListenAt::any).into_iter().chain(ListenAt::LOOKUPS).filter_map(at).collect()
    }
}
