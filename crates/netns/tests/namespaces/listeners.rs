//! Listeners that two processes share, one after the other.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use netns::{
    Families, Fence, ListenAny, ListenLoopback, LoopbackError, LoopbackSockets, PodNetns, PortUse,
    dial_udp, inspect_datagrams, inspect_listener, is_listening, listen_again, listen_any,
    listen_loopback, share_port,
};
use socket2::SockRef;

use crate::support::{eventually, scratch};

struct Pod {
    fence: Fence,
    netns: PodNetns,
}

impl Pod {
    fn new() -> Self {
        Self { fence: Fence::new(1).unwrap(), netns: scratch() }
    }

    #[expect(clippy::disallowed_methods, reason = "tests act with the kernel's own tools")]
    fn run(&self, line: &'static str) {
        let words: Vec<&str> = line.split(' ').collect();
        let job = move || std::process::Command::new(words[0]).args(&words[1..]).output();
        let output = self.fence.run(&self.netns, job).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
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

/// What lets a ztunnel go on with what it was given after somebody in the pod ended it.
#[test]
fn a_listener_that_was_ended_from_outside_listens_again_for_all_who_hold_it() {
    let pod = Pod::new();
    let (held, given) = {
        let held = pod.listen(PortUse::Alone).unwrap();
        (held.try_clone().unwrap(), held)
    };
    pod.run("ip link set lo up");
    pod.run("ss -K -tnlH sport = :15001");
    assert!(!is_listening(&held).unwrap() && !is_listening(&given).unwrap());
    listen_again(&held, 4096).unwrap();
    assert!(is_listening(&given).unwrap());
    let client = pod.fence.run(&pod.netns, || std::net::TcpStream::connect("127.0.0.1:15001"));
    let client = client.unwrap().expect("somebody listens");
    given.set_nonblocking(false).unwrap();
    let (accepted, _) = given.accept().unwrap();
    std::io::Write::write_all(&mut &client, b"hello").unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(&mut &accepted, &mut word).unwrap();
    assert_eq!(&word, b"hello", "as from one that was never ended");
}

#[test]
fn a_place_that_was_taken_meanwhile_is_not_taken_back() {
    let pod = Pod::new();
    let held = pod.listen(PortUse::Alone).unwrap();
    pod.run("ss -K -tnlH sport = :15001");
    let _other = pod.listen(PortUse::Alone).expect("nobody listens there");
    assert_eq!(listen_again(&held, 1).unwrap_err().kind(), ErrorKind::AddrInUse);
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

impl Pod {
    fn listen_loopback(&self, families: Families) -> Result<Vec<LoopbackSockets>, LoopbackError> {
        self.listen_loopback_as(families, PortUse::Alone)
    }

    fn listen_loopback_as(
        &self,
        families: Families,
        port_use: PortUse,
    ) -> Result<Vec<LoopbackSockets>, LoopbackError> {
        let listen = ListenLoopback { port: 15053, families, mark: Some(0x539), port_use };
        self.fence.run(&self.netns, move || listen_loopback(&listen)).unwrap()
    }

    /// Where it listens once the port is free: a program that another test is starting has
    /// copies of all our sockets for a moment.
    fn listens_again(&self, families: Families) -> Vec<String> {
        let mut found = Vec::new();
        eventually("the port is free again", || match self.listen_loopback(families) {
            Ok(sockets) => {
                found = addresses(&sockets);
                true
            }
            Err(error) => {
                assert_eq!(error.source.kind(), ErrorKind::AddrInUse, "{error:?}");
                false
            }
        });
        found
    }

    fn without_ipv6(&self) {
        let path = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
        self.fence.run(&self.netns, move || std::fs::write(path, "1")).unwrap().unwrap();
    }
}

fn addresses(sockets: &[LoopbackSockets]) -> Vec<String> {
    sockets.iter().map(|sockets| sockets.addr.to_string()).collect()
}

#[test]
fn a_name_server_listens_on_the_loopback_addresses_that_there_are() {
    let pod = Pod::new();
    crate::support::run(&pod.fence, &pod.netns, "ip link set lo up");
    let both = pod.listen_loopback(Families::All).unwrap();
    assert_eq!(addresses(&both), ["127.0.0.1:15053", "[::1]:15053"]);
    for LoopbackSockets { addr, udp, tcp } in &both {
        let (datagrams, listener) =
            (inspect_datagrams(udp).unwrap(), inspect_listener(tcp).unwrap());
        assert_eq!((datagrams.addr, listener.addr), (*addr, *addr));
        assert_eq!(datagrams.netns_cookie, pod.netns.id().cookie);
        assert_ne!(datagrams.inode, listener.inode);
        assert_eq!(SockRef::from(udp).mark().unwrap(), 0x539);
    }
    let taken = pod.listen_loopback(Families::V4).unwrap_err();
    assert_eq!((taken.addr, taken.source.kind()), (both[0].addr, ErrorKind::AddrInUse));
    drop(both);
    assert_eq!(pod.listens_again(Families::V4), ["127.0.0.1:15053"]);
    pod.without_ipv6();
    assert_eq!(pod.listens_again(Families::All), ["127.0.0.1:15053"]);
}

#[test]
fn two_name_servers_share_a_port_if_both_ask_for_it() {
    let pod = Pod::new();
    crate::support::run(&pod.fence, &pod.netns, "ip link set lo up");
    let first = pod.listen_loopback_as(Families::All, PortUse::Shared).unwrap();
    let refused = pod.listen_loopback(Families::All).unwrap_err();
    assert_eq!(refused.source.kind(), ErrorKind::AddrInUse, "{refused:?}");
    let second = pod.listen_loopback_as(Families::All, PortUse::Shared).unwrap();
    assert_eq!(addresses(&first), addresses(&second));
}

#[test]
fn only_a_socket_that_hears_everybody_is_one_for_datagrams() {
    let pod = Pod::new();
    crate::support::run(&pod.fence, &pod.netns, "ip link set lo up");
    let to = SocketAddr::from(([127, 0, 0, 1], 53));
    let connected = pod.fence.run(&pod.netns, move || dial_udp(to, None)).unwrap().unwrap();
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let listener = pod.listen(PortUse::Alone).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for stranger in [connected.as_fd(), unbound.as_fd(), listener.as_fd(), file.as_fd()] {
        assert!(inspect_datagrams(&stranger).is_err());
    }
}
