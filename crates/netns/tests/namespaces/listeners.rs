//! Listeners that two processes share, one after the other.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::AsFd;

use netns::{
    Families, Fence, ListenAny, PodNetns, PortUse, inspect_listener, listen_any, share_port,
};
use socket2::SockRef;

use crate::support::scratch;

struct Pod {
    fence: Fence,
    netns: PodNetns,
}

impl Pod {
    fn new() -> Self {
        Self { fence: Fence::new(1).unwrap(), netns: scratch() }
    }

    fn listen(&self, port_use: PortUse) -> std::io::Result<TcpListener> {
        self.listen_on(Families::All, port_use)
    }

    fn listen_on(&self, families: Families, port_use: PortUse) -> std::io::Result<TcpListener> {
        let listen =
            ListenAny { port: 15001, families, backlog: 4096, mark: Some(0x539), port_use };
        self.fence.run(&self.netns, move || listen_any(&listen)).unwrap()
    }
}

#[test]
fn a_port_is_alone_or_shared() {
    let pod = Pod::new();
    let alone = pod.listen(PortUse::Alone).unwrap();
    assert_eq!(SockRef::from(&alone).mark().unwrap(), 0x539);
    for families in [Families::All, Families::V4] {
        let taken = pod.listen_on(families, PortUse::Shared).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }
    drop(alone);
    let _shared = pod.listen(PortUse::Shared).unwrap();
    assert!(pod.listen(PortUse::Alone).is_err());
    assert!(pod.listen(PortUse::Shared).is_ok());
}

/// What lets a ztunnel that binds for itself start beside one that was given listeners.
#[test]
fn a_port_that_was_alone_can_be_opened_to_others() {
    let pod = Pod::new();
    let first = pod.listen(PortUse::Alone).unwrap();
    share_port(&first).unwrap();
    let second = pod.listen(PortUse::Shared).expect("it is shared now");
    assert!(pod.listen(PortUse::Alone).is_err(), "only with who asks for it as well");
    drop((first, second));
}

#[test]
fn a_descriptor_tells_what_it_is() {
    let (pod, other) = (Pod::new(), Pod::new());
    let listener = pod.listen(PortUse::Alone).unwrap();
    let facts = inspect_listener(&listener).unwrap();
    assert_eq!(facts.addr.to_string(), "[::]:15001");
    assert_eq!(facts.netns_cookie, pod.netns.id().cookie);
    let copy = listener.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(inspect_listener(&copy).unwrap(), facts, "a duplicate is the same socket");
    let elsewhere = inspect_listener(&other.listen(PortUse::Alone).unwrap()).unwrap();
    assert_ne!(elsewhere.inode, facts.inode);
    assert_ne!(elsewhere.netns_cookie, facts.netns_cookie);

    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for stranger in [udp.as_fd(), silent.as_fd(), file.as_fd()] {
        assert!(inspect_listener(&stranger).is_err());
    }
}
