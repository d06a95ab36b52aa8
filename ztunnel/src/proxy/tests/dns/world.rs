//! A captured pod and, on the other end of its wire, resolvers that nobody captures.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::{Arc, Mutex};

use netns::{
    Dial, Families, Fence, Listen, ListenLoopback, PodNetns, PortUse, dial_socket, dial_udp,
    listen_loopback, listen_tcp, listen_udp,
};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::super::world::{is_deliverable, soon};
use crate::dns::Upstreams;
use crate::identity::{Certificates, Issuer};
use crate::proxy::{
    Claim, GivenListener, Listeners, NameServer, Pod, PodProxy, ProxyContext, Settings,
};
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;
use crate::tls::test_ca::TestCa;
use crate::worker::Workers;

pub(super) const POD: [&str; 2] = ["10.78.0.1", "fd78::1"];
/// A resolver as most have it, of either family, and one on a link-local address as
/// node-local caches have it.
pub(super) const RESOLVERS: [&str; 3] = ["10.78.0.2", "fd78::2", "169.254.20.10"];
/// Nobody listens there, but the host answers that.
pub(super) const CLOSED: &str = "10.78.0.3";

/// What the agent's rules do to lookups, and to TCP.
const RULES: &str = "table inet capture {
  chain zone { type filter hook output priority -300;
    meta mark and 0xfff == 0x539 udp dport 53 ct original zone set 1
  }
  chain out { type nat hook output priority -105;
    oifname lo accept
    meta mark and 0xfff == 0x539 accept
    udp dport 53 ip6 daddr fe80::/10 accept
    udp dport 53 fib daddr type unicast redirect to :15053
    meta l4proto != tcp accept
    tcp dport 53 redirect to :15053
    meta l4proto tcp redirect to :15001
  }
}";

pub(super) struct World {
    pub(super) fence: Fence,
    pub(super) pod: PodNetns,
    outside: PodNetns,
    pub(super) registry: Registry,
    context: Arc<ProxyContext>,
}

impl World {
    pub(super) fn new(view: ViewHandle, change: impl FnOnce(&mut Settings)) -> Self {
        let fence = Fence::new(2).unwrap();
        let [pod, outside] = [(); 2].map(|()| PodNetns::scratch().expect("these tests need root"));
        let mut settings = Settings::default();
        change(&mut settings);
        let mut registry = Registry::default();
        let telemetry = Telemetry::new(&mut registry);
        let certificates = Certificates::with_issuer(Issuer::Local(TestCa::new()));
        let workers = Workers::start(NonZeroUsize::MIN).unwrap();
        let context =
            ProxyContext::new(view, certificates, telemetry, fence.clone(), workers, settings);
        let world = Self { fence, pod, outside, registry, context };
        world.wire();
        world
    }

    fn wire(&self) {
        let end = format!("/proc/{}/fd/{}", std::process::id(), self.outside.as_fd().as_raw_fd());
        run(self, &self.pod, &format!("ip link add eth0 type veth peer eth0 netns {end}"));
        for netns in [&self.pod, &self.outside] {
            run(self, netns, "ip link set lo up");
            run(self, netns, "ip link set eth0 up");
        }
        run(self, &self.pod, "ip address add 10.78.0.1/24 dev eth0");
        run(self, &self.pod, "ip address add fd78::1/64 dev eth0 nodad");
        run(self, &self.pod, "ip route add 169.254.20.10 dev eth0");
        for address in RESOLVERS.iter().chain([&CLOSED]) {
            let (length, flags) = if address.contains(':') { (64, " nodad") } else { (24, "") };
            run(self, &self.outside, &format!("ip address add {address}/{length} dev eth0{flags}"));
        }
        for (netns, addresses) in [(&self.pod, &POD[..]), (&self.outside, &RESOLVERS)] {
            addresses.iter().for_each(|it| is_deliverable(&self.fence, netns, it.parse().unwrap()));
        }
        let load = ["nft", RULES].map(str::to_owned);
        run_words(self, &self.pod, load.to_vec());
    }

    /// The pod's proxy.
    pub(super) async fn start(&self) -> PodProxy {
        self.start_on(NameServer::AsConfigured).await
    }

    /// The same, with a name server as the agent wants it.
    pub(super) async fn start_on(&self, name_server: NameServer) -> PodProxy {
        let info = zds::WorkloadInfo {
            name: "client".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "client".to_owned(),
        };
        let pod = Pod {
            uid: "uid-client".to_owned(),
            info,
            netns: self.pod.clone().into(),
            listeners: Listeners::ToBind(Claim::Shared),
            name_server,
        };
        soon(PodProxy::start(&self.context, pod)).await.unwrap()
    }

    /// Sockets for a name server, as the agent opens and holds them.
    pub(super) fn held(&self) -> Vec<GivenListener> {
        let job = || {
            listen_loopback(&ListenLoopback {
                port: zds::port::DNS,
                families: Families::All,
                mark: Some(zds::PACKET_MARK.value),
                port_use: PortUse::Alone,
            })
        };
        let sockets = self.fence.run(&self.pod, job).unwrap().unwrap();
        let sockets = sockets.into_iter().flat_map(|it| [it.udp.into(), it.tcp.into()]);
        let given = zds::ListenAt::LOOKUPS.into_iter().zip(sockets);
        let given = given.map(|(at, fd)| zds::GivenListener { at, fd }).collect();
        GivenListener::check_lookups(given, &self.pod).unwrap()
    }

    /// A resolver outside, on UDP and TCP of `address`.
    pub(super) fn resolver(&self, address: &str, reply: Reply) -> Resolver {
        let at = SocketAddr::new(address.parse().unwrap(), 53);
        let (udp, tcp) = self.listen(&self.outside, at);
        Resolver::start(udp, tcp, reply)
    }

    pub(super) fn listen(&self, netns: &PodNetns, at: SocketAddr) -> (UdpSocket, TcpListener) {
        let job = move || {
            let udp = listen_udp(at, None, 4 << 20).unwrap();
            (udp, listen_tcp(&Listen { addr: at, backlog: 64, mark: None }).unwrap())
        };
        let (udp, tcp) = self.fence.run(netns, job).unwrap();
        (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap())
    }

    /// An application of the pod with a socket that hears `server` only.
    pub(super) fn ask(&self, server: SocketAddr) -> UdpSocket {
        let socket = self.fence.run(&self.pod, move || dial_udp(server, None)).unwrap().unwrap();
        UdpSocket::from_std(socket).unwrap()
    }

    /// Somebody outside.
    pub(super) fn outside_socket(&self, from: SocketAddr) -> UdpSocket {
        let job = move || listen_udp(from, None, 4096);
        UdpSocket::from_std(self.fence.run(&self.outside, job).unwrap().unwrap()).unwrap()
    }

    /// From now on the pod's kernel has to use the same few ports again and again.
    pub(super) fn few_ports(&self) {
        let job = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007");
        self.fence.run(&self.pod, job).unwrap().unwrap();
    }

    /// From now on the pod has no IPv6 on its loopback interface.
    pub(super) fn without_ipv6(&self) {
        let job = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        self.fence.run(&self.pod, job).unwrap().unwrap();
    }

    /// A resolver on an address that means something on the wire only, as the pod sees it.
    pub(super) fn link_local_resolver(&self, reply: Reply) -> (SocketAddr, Resolver) {
        run(self, &self.outside, "ip address add fe80::53/64 dev eth0 nodad");
        is_deliverable(&self.fence, &self.outside, "fe80::53".parse().unwrap());
        let seen_by = |netns| {
            let ip = "fe80::53".parse().unwrap();
            SocketAddr::from(SocketAddrV6::new(ip, 53, 0, self.wire_of(netns)))
        };
        let (udp, tcp) = self.listen(&self.outside, seen_by(&self.outside));
        (seen_by(&self.pod), Resolver::start(udp, tcp, reply))
    }

    /// The number of its end of the wire.
    fn wire_of(&self, netns: &PodNetns) -> u32 {
        let job = || std::fs::read_to_string("/proc/thread-self/net/dev_snmp6/eth0").unwrap();
        let text = self.fence.run(netns, job).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many sockets of the pod are bound to this port and connected to nobody.
    pub(super) fn listening(&self, port: u16) -> usize {
        let port = format!(":{port:04X} ");
        let job = move || {
            let tables = ["udp", "udp6", "tcp", "tcp6"].map(|name| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap()
            });
            let bound = |line: &&str| {
                let mut words = line.split_whitespace().skip(1);
                let local = words.next().is_some_and(|it| format!("{it} ").ends_with(&port));
                local && words.next().is_some_and(|it| it.ends_with(":0000"))
            };
            tables.iter().map(|table| table.lines().filter(bound).count()).sum()
        };
        self.fence.run(&self.pod, job).unwrap()
    }

    /// An application of the pod connects.
    pub(super) async fn dial(&self, to: SocketAddr) -> TcpStream {
        let job = move || dial_socket(&Dial { to, mark: None, from: None });
        let socket = self.fence.run(&self.pod, job).unwrap().unwrap();
        soon(TcpSocket::from_std_stream(socket.into()).connect(to)).await.unwrap()
    }

    /// The pod's proxy asks these when it does not know better.
    pub(super) fn upstreams(servers: &[&str]) -> Upstreams {
        let servers = servers.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 53));
        Upstreams::new(&servers.collect::<Vec<_>>())
    }
}

fn run(world: &World, netns: &PodNetns, command: &str) {
    run_words(world, netns, command.split(' ').map(str::to_owned).collect());
}

#[expect(clippy::disallowed_methods, reason = "tests build their own namespaces")]
fn run_words(world: &World, netns: &PodNetns, words: Vec<String>) {
    let text = words.join(" ");
    let job = move || Command::new(&words[0]).args(&words[1..]).output();
    let output = world.fence.run(netns, job).unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}: {stderr}");
}

/// What a resolver says to a message.
pub(super) type Reply = fn(&[u8], Over) -> Option<Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// A resolver and what it was asked.
pub(super) struct Resolver {
    pub(super) heard: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(super) sources: Arc<Mutex<HashSet<SocketAddr>>>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Resolver {
    pub(super) fn start(udp: UdpSocket, tcp: TcpListener, reply: Reply) -> Self {
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let sources = Arc::<Mutex<HashSet<SocketAddr>>>::default();
        let (log, from) = (Arc::clone(&heard), Arc::clone(&sources));
        let datagrams = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                log.lock().unwrap().push(buffer[..length].to_vec());
                from.lock().unwrap().insert(peer);
                if let Some(answer) = reply(&buffer[..length], Over::Udp) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let log = Arc::clone(&heard);
        let connections = tokio::spawn(async move {
            while let Ok((mut tcp, _)) = tcp.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    while let Ok(query) = read_frame(&mut tcp).await {
                        log.lock().unwrap().push(query.clone());
                        match reply(&query, Over::Tcp) {
                            Some(answer) => tcp.write_all(&framed(&answer)).await.unwrap(),
                            None => return,
                        }
                    }
                });
            }
        });
        Self { heard, sources, tasks: [datagrams, connections] }
    }
}

/// Its first part with its length, where it is several messages already.
fn framed(answer: &[u8]) -> Vec<u8> {
    match answer.len() {
        0..=65_535 => frame(answer),
        _ => [&20_000u16.to_be_bytes(), answer].concat(),
    }
}

pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) async fn read_frame(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(tcp.read_u16().await?)];
    tcp.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), 53)
}
