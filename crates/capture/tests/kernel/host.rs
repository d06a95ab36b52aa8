//! The host's rules: a host with two pods on one bridge and a third one that is routed.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use capture::{HOST_TABLE, HostListing, HostRules, Ruleset, replace};
use netns::{Dial, Fence, Listen, PodNetns, dial_socket, listen_tcp};
use socket2::SockRef;

use crate::support::plain;
use crate::world::{run, succeed};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something is waited for that must not happen.
const IN_VAIN: Duration = Duration::from_secs(1);
const PROBED: u16 = 8080;
const OTHER: u16 = 8081;

#[derive(Clone, Copy)]
struct Addresses {
    gateway: &'static str,
    pod: &'static str,
    neighbour: &'static str,
    stranger: &'static str,
    marker: &'static str,
    any: &'static str,
    host_bits: &'static str,
    link_bits: &'static str,
    family: &'static str,
}

const FAMILIES: [Addresses; 2] = [
    Addresses {
        gateway: "10.78.0.1",
        pod: "10.78.0.2",
        neighbour: "10.78.0.3",
        stranger: "10.79.0.4",
        marker: "169.254.7.127",
        any: "0.0.0.0",
        host_bits: "32",
        link_bits: "24",
        family: "-4",
    },
    Addresses {
        gateway: "fd78::1",
        pod: "fd78::2",
        neighbour: "fd78::3",
        stranger: "fd79::4",
        marker: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
        any: "::",
        host_bits: "128",
        link_bits: "64",
        family: "-6",
    },
];

/// pod and neighbour on the host's bridge, stranger behind a link of its own.
struct Net {
    fence: Fence,
    host: PodNetns,
    pod: PodNetns,
    neighbour: PodNetns,
    stranger: PodNetns,
}

impl Net {
    fn new() -> Self {
        let netns = || PodNetns::scratch().expect("these tests make namespaces and need root");
        let fence = Fence::new(1).unwrap();
        let (host, pod, neighbour, stranger) = (netns(), netns(), netns(), netns());
        let net = Self { fence, host, pod, neighbour, stranger };
        let forward = || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        };
        net.fence.run(&net.host, forward).unwrap();
        net.ip(&net.host, "link add br0 type bridge");
        net.ip(&net.host, "link set br0 up");
        for (name, netns) in
            [("topod", &net.pod), ("toneighbour", &net.neighbour), ("tostranger", &net.stranger)]
        {
            let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
            net.ip(&net.host, &format!("link add {name} type veth peer name eth0 netns {path}"));
            net.ip(&net.host, &format!("link set {name} up"));
            net.ip(netns, "link set lo up");
            net.ip(netns, "link set eth0 up");
        }
        net.ip(&net.host, "link set topod master br0");
        net.ip(&net.host, "link set toneighbour master br0");
        net.ip(&net.host, "link set lo up");
        FAMILIES.iter().for_each(|at| net.addresses(at));
        net
    }

    fn addresses(&self, at: &Addresses) {
        let add = |netns: &PodNetns, addr: &str, bits: &str, dev: &str| {
            let nodad = if at.family == "-6" { " nodad" } else { "" };
            self.ip(netns, &format!("addr add {addr}/{bits} dev {dev}{nodad}"));
            self.settled(netns, addr);
        };
        add(&self.host, at.gateway, at.link_bits, "br0");
        add(&self.pod, at.pod, at.link_bits, "eth0");
        add(&self.neighbour, at.neighbour, at.link_bits, "eth0");
        add(&self.stranger, at.stranger, at.host_bits, "eth0");
        let (family, gateway) = (at.family, at.gateway);
        for netns in [&self.pod, &self.neighbour] {
            self.ip(netns, &format!("{family} route add default via {gateway}"));
        }
        // Its gateway has the address on another link, and would not answer for it here.
        let mac = self.mac(&self.host, "tostranger");
        let stranger = &self.stranger;
        self.ip(stranger, &format!("neigh add {gateway} lladdr {mac} nud permanent dev eth0"));
        self.ip(stranger, &format!("{family} route add default via {gateway} dev eth0 onlink"));
        self.ip(
            &self.host,
            &format!("{family} route add {}/{} dev tostranger", at.stranger, at.host_bits),
        );
    }

    /// The kernel makes an IPv6 address usable in its own time.
    fn settled(&self, netns: &PodNetns, addr: &str) {
        let Ok(v6) = addr.parse::<Ipv6Addr>() else { return };
        let host_route = v6.octets().map(|octet| format!("{octet:02x}")).concat() + " 80 ";
        let deadline = Instant::now() + PATIENCE;
        let routes = || std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        while !self.fence.run(netns, routes).unwrap().contains(&host_route) {
            assert!(Instant::now() < deadline, "no route to {addr} within {PATIENCE:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn ip(&self, netns: &PodNetns, arguments: &str) -> String {
        let command: Vec<_> = ["ip"].into_iter().chain(arguments.split(' ')).collect();
        succeed(&run(&self.fence, netns, &command, ""))
    }

    fn mac(&self, netns: &PodNetns, link: &str) -> String {
        let shown = self.ip(netns, &format!("-o link show {link}"));
        shown.split_once("link/ether ").unwrap().1.split(' ').next().unwrap().to_owned()
    }

    fn load(&self, netns: &PodNetns, json: &str) {
        succeed(&run(&self.fence, netns, &["nft", "-j", "-f", "-"], json));
    }

    fn nft(&self, netns: &PodNetns, commands: &str) {
        succeed(&run(&self.fence, netns, &["nft", "-f", "-"], commands));
    }

    /// Captures the pod, without a proxy: what is captured is refused.
    fn capture(&self) {
        let mut options = plain();
        options.probes.ports = [PROBED].into();
        self.load(&self.pod, &replace(&Ruleset::capture(&options)));
    }

    fn listing(&self, netns: &PodNetns) -> HostListing {
        let table = |family| {
            let output =
                run(&self.fence, netns, &["nft", "-j", "list", "table", family, HOST_TABLE], "");
            output.status.success().then(|| succeed(&output))
        };
        HostListing::parse(table("inet").as_deref(), table("bridge").as_deref()).unwrap()
    }

    fn listen(&self, netns: &PodNetns, addr: &str, port: u16) -> TcpListener {
        let addr = SocketAddr::new(addr.parse().unwrap(), port);
        let listen = Listen { addr, backlog: 16, mark: None };
        let listener = self.fence.run(netns, move || listen_tcp(&listen)).unwrap().unwrap();
        listener.set_nonblocking(false).unwrap();
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        listener
    }

    fn open(
        &self,
        netns: &PodNetns,
        to: (&str, u16),
        from: Option<&str>,
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.0.parse().unwrap(), to.1);
        let from = from.map(|from| SocketAddr::new(from.parse().unwrap(), 0));
        let dial = Dial { to, mark: None, from };
        let socket = self.fence.run(netns, move || dial_socket(&dial)).unwrap()?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(socket.into())
    }
}

fn rules(at: &[Addresses]) -> HostRules {
    let exemptions = at.iter().map(|at| (at.pod.parse().unwrap(), PROBED)).collect();
    HostRules {
        v4: FAMILIES[0].marker.parse().unwrap(),
        v6: FAMILIES[1].marker.parse().unwrap(),
        exemptions,
    }
}

fn refused(result: io::Result<TcpStream>) {
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_probe_of_the_host_arrives_with_the_marker_and_on_declared_ports_only() {
    let net = Net::new();
    net.capture();
    net.load(&net.host, &rules(&FAMILIES).replace());
    for at in FAMILIES {
        let app = net.listen(&net.pod, at.any, PROBED);
        let _other = net.listen(&net.pod, at.any, OTHER);
        let _probe = net.open(&net.host, (at.pod, PROBED), None, PATIENCE).unwrap();
        let (_, from) = app.accept().unwrap();
        assert_eq!(from.ip(), at.marker.parse::<IpAddr>().unwrap());
        refused(net.open(&net.host, (at.pod, OTHER), None, PATIENCE));
        // What is forwarded is no probe, whatever it dials.
        refused(net.open(&net.stranger, (at.pod, PROBED), None, PATIENCE));
        refused(net.open(&net.neighbour, (at.pod, PROBED), None, PATIENCE));
        // A program that another test is starting may have the descriptor for a moment more.
        SockRef::from(&app).shutdown(Shutdown::Both).unwrap();
        refused(net.open(&net.host, (at.pod, PROBED), None, PATIENCE));
    }
}

#[test]
fn what_nat_leads_to_a_probed_port_is_no_probe() {
    let net = Net::new();
    net.capture();
    net.load(&net.host, &rules(&FAMILIES).replace());
    net.nft(
        &net.host,
        &format!(
            "table inet services {{\n
             chain out {{ type nat hook output priority -100;\n
               ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.78.0.2:{PROBED}\n
               ip6 daddr fd96::1 tcp dport 80 dnat ip6 to [fd78::2]:{PROBED}\n }}\n
             chain pre {{ type nat hook prerouting priority -100;\n
               tcp dport 30080 meta nfproto ipv4 dnat ip to 10.78.0.2:{PROBED}\n
               tcp dport 30080 meta nfproto ipv6 dnat ip6 to [fd78::2]:{PROBED}\n }}\n
             chain post {{ type nat hook postrouting priority 100;\n
               ct status dnat masquerade\n }}\n }}"
        ),
    );
    // Nobody has these addresses; they need a way out to be translated on it.
    net.ip(&net.host, "route add 10.96.0.0/16 dev br0");
    net.ip(&net.host, "-6 route add fd96::/64 dev br0");
    for (at, service) in FAMILIES.into_iter().zip(["10.96.0.1", "fd96::1"]) {
        let _app = net.listen(&net.pod, at.any, PROBED);
        refused(net.open(&net.host, (service, 80), None, PATIENCE));
        refused(net.open(&net.stranger, (at.gateway, 30080), None, PATIENCE));
        net.open(&net.host, (at.pod, PROBED), None, PATIENCE).unwrap();
    }
}

#[test]
fn a_forged_marker_is_dropped_where_the_host_routes() {
    for at in FAMILIES {
        let net = Net::new();
        net.capture();
        let _app = net.listen(&net.pod, at.any, PROBED);
        let marker = format!("{}/{}", at.marker, at.host_bits);
        net.ip(&net.stranger, &format!("addr add {marker} dev eth0"));
        // Answers find the forger: the worst case.
        net.ip(&net.host, &format!("{} route add {marker} dev tostranger", at.family));
        net.settled(&net.stranger, at.marker);
        let forge = |patience| net.open(&net.stranger, (at.pod, PROBED), Some(at.marker), patience);
        net.load(&net.host, &HostRules::removal());
        forge(PATIENCE).expect("without the guard a forger gets in");
        net.load(&net.host, &rules(&FAMILIES).replace());
        assert_eq!(forge(IN_VAIN).err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
    }
}

#[test]
fn a_forged_marker_is_dropped_where_the_host_only_switches() {
    for at in FAMILIES {
        let net = Net::new();
        net.capture();
        let _app = net.listen(&net.pod, at.any, PROBED);
        let marker = format!("{}/{}", at.marker, at.host_bits);
        net.ip(&net.neighbour, &format!("addr add {marker} dev eth0"));
        net.settled(&net.neighbour, at.marker);
        // The forger has made the pod believe that it is the gateway.
        let (gateway, forger) = (at.gateway, net.mac(&net.neighbour, "eth0"));
        net.ip(
            &net.pod,
            &format!("neigh replace {gateway} lladdr {forger} nud permanent dev eth0"),
        );
        let forge =
            |patience| net.open(&net.neighbour, (at.pod, PROBED), Some(at.marker), patience);
        net.load(&net.host, &HostRules::removal());
        forge(PATIENCE).expect("without the guard a forger gets in");
        net.load(&net.host, &rules(&FAMILIES).replace());
        assert_eq!(forge(IN_VAIN).err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
    }
}

#[test]
fn the_marker_is_nobodys_address_where_a_route_calls_it_the_hosts_own() {
    for at in FAMILIES {
        let net = Net::new();
        net.capture();
        let (_app, _service) =
            (net.listen(&net.pod, at.any, PROBED), net.listen(&net.host, at.any, 30080));
        let (family, marker) = (at.family, at.marker);
        net.ip(&net.host, &format!("{family} route add local {marker}/{} dev lo", at.host_bits));
        let stray = |patience| net.open(&net.stranger, (marker, 30080), None, patience);
        net.load(&net.host, &HostRules::removal());
        stray(PATIENCE).expect("without the rules the host's services answer there");
        net.load(&net.host, &rules(&FAMILIES).replace());
        assert_eq!(stray(IN_VAIN).err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
        net.open(&net.host, (at.pod, PROBED), None, PATIENCE).expect("answers to probes are none");
    }
}

#[test]
fn what_is_on_the_host_is_compared_changed_and_removed() {
    let net = Net::new();
    let scratch = PodNetns::scratch().unwrap();
    let empty = rules(&[]);
    net.load(&scratch, &empty.replace());
    let base = net.listing(&scratch);
    let differs = |rules: &HostRules| {
        let reference = base.clone().with(&rules.exemptions);
        let drifts = reference.differences(&net.listing(&net.host));
        drifts.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        differs(&empty),
        ["inet table sluice_host is missing", "bridge table sluice_host is missing"]
    );
    let (both, one) = (rules(&FAMILIES), rules(&FAMILIES[..1]));
    net.load(&net.host, &both.replace());
    assert_eq!(differs(&both), [""; 0]);
    assert_eq!(net.listing(&net.host).exemptions(), both.exemptions);
    net.load(&net.host, &one.change(&both.exemptions).unwrap());
    assert_eq!(differs(&one), [""; 0]);
    net.load(&net.host, &both.change(&one.exemptions).unwrap());
    net.nft(&net.host, "flush set inet sluice_host probe4");
    assert!(differs(&both)[0].contains("10.78.0.2"), "{:?}", differs(&both));
    net.nft(&net.host, "flush chain bridge sluice_host guard");
    assert_eq!(differs(&both).len(), 3, "{:?}", differs(&both));
    net.load(&net.host, &both.replace());
    assert_eq!(differs(&both), [""; 0]);
    net.load(&net.host, &HostRules::removal());
    net.load(&net.host, &HostRules::removal());
    assert_eq!(net.listing(&net.host), HostListing::default());
    assert_eq!(net.listing(&net.host).exemptions(), BTreeSet::new());
}
