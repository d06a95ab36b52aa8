//! A pod and a peer, joined by one link.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use netns::{Dial, Listen, PodNetns, dial_socket, listen_tcp};
use socket2::SockRef;

use crate::world::{World, run, succeed};

/// Longer than anything here takes, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(5);

pub const PROXY_MARK: Option<u32> = Some(0x539);

/// The pod's and the peer's address in one family.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub pod: IpAddr,
    pub peer: IpAddr,
    pub any: IpAddr,
}

pub fn families() -> [Addresses; 2] {
    let of = |pod: &str, peer: &str, any: &str| Addresses {
        pod: pod.parse().unwrap(),
        peer: peer.parse().unwrap(),
        any: any.parse().unwrap(),
    };
    [of("10.77.0.2", "10.77.0.1", "0.0.0.0"), of("fd77::2", "fd77::1", "::")]
}

/// A pod with a link to a peer.
pub struct Net {
    pub world: World,
    pub peer: PodNetns,
}

impl Net {
    pub fn new() -> Self {
        let net = Self { world: World::new(), peer: PodNetns::scratch().unwrap() };
        net.link(&net.world.pod, "eth0", &net.peer);
        for (netns, v4, v6) in
            [(&net.world.pod, "10.77.0.2", "fd77::2"), (&net.peer, "10.77.0.1", "fd77::1")]
        {
            net.address(netns, "eth0", v4, v6);
        }
        net
    }

    /// A further namespace, whose `eth0` is linked to `device` of `netns`.
    pub fn join(&self, netns: &PodNetns, device: &str) -> PodNetns {
        let joined = PodNetns::scratch().unwrap();
        self.link(netns, device, &joined);
        joined
    }

    fn link(&self, netns: &PodNetns, device: &str, far: &PodNetns) {
        let far = format!("/proc/{}/fd/{}", std::process::id(), far.as_fd().as_raw_fd());
        self.ip(netns, &format!("link add {device} type veth peer name eth0 netns {far}"));
    }

    /// Brings a device up, with an address in both families.
    pub fn address(&self, netns: &PodNetns, device: &str, v4: &str, v6: &str) {
        self.ip(netns, "link set lo up");
        self.ip(netns, &format!("link set {device} up"));
        self.ip(netns, &format!("addr add {v4}/24 dev {device}"));
        self.ip(netns, &format!("addr add {v6}/64 dev {device} nodad"));
        self.wait_for_route(netns, v6);
    }

    /// The kernel makes an IPv6 address reachable in its own time, duplicate detection or
    /// not.
    fn wait_for_route(&self, netns: &PodNetns, to: &str) {
        let octets = to.parse::<Ipv6Addr>().unwrap().octets();
        let host_route = octets.map(|octet| format!("{octet:02x}")).concat() + " 80 ";
        let deadline = Instant::now() + PATIENCE;
        let routes = || std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        while !self.world.fence.run(netns, routes).unwrap().contains(&host_route) {
            assert!(Instant::now() < deadline, "no route to {to} within {PATIENCE:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The route that leads answers with the connection mark back to the proxy.
    pub fn route_answers(&self) {
        for family in ["-4", "-6"] {
            let pod = &self.world.pod;
            self.ip(pod, &format!("{family} rule add fwmark 0x111/0xfff lookup 1337 pref 13"));
            self.ip(pod, &format!("{family} route add local default dev lo table 1337"));
        }
    }

    pub fn ip(&self, netns: &PodNetns, arguments: &str) {
        let command: Vec<_> = ["ip"].into_iter().chain(arguments.split(' ')).collect();
        succeed(&run(&self.world.fence, netns, &command, ""));
    }

    pub fn listen(&self, netns: &PodNetns, addr: IpAddr, port: u16) -> TcpListener {
        let listen = Listen { addr: (addr, port).into(), backlog: 16, mark: None };
        let listener = self.world.fence.run(netns, move || listen_tcp(&listen)).unwrap().unwrap();
        listener.set_nonblocking(false).unwrap();
        // Linux lets accept(2) end at this time, too.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        listener
    }

    pub fn dial(&self, netns: &PodNetns, dial: Dial) -> io::Result<TcpStream> {
        let socket = self.world.fence.run(netns, move || dial_socket(&dial)).unwrap()?;
        socket.connect_timeout(&dial.to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    }

    /// What an ordinary program in `netns` experiences.
    pub fn open(&self, netns: &PodNetns, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        self.dial(netns, Dial { to: to.into(), mark: None, from: None })
    }
}

/// One byte there and one back.
pub fn talk(a: &mut TcpStream, b: &mut TcpStream) {
    let mut byte = [0];
    a.write_all(b"?").unwrap();
    b.set_read_timeout(Some(PATIENCE)).unwrap();
    b.read_exact(&mut byte).unwrap();
    b.write_all(b"!").unwrap();
    a.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
}
