//! What a pod that lets nothing pass uncaptured can still do, and what it cannot.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use capture::{Dns, Options, Ruleset, Uncaptured};
use netns::PodNetns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::{Addresses, Net, PATIENCE, PROXY_MARK, families, talk};
use crate::support::plain;

fn blocking() -> Options {
    Options { uncaptured: Uncaptured::Block, ..plain() }
}

fn bind(net: &Net, netns: &PodNetns, addr: IpAddr, port: u16, mark: Option<u32>) -> UdpSocket {
    let addr = SocketAddr::from((addr, port));
    let socket = net.world.fence.run(netns, move || netns::listen_udp(addr, mark, 4096));
    let socket = socket.unwrap().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One datagram there and one back.
fn echo(client: &UdpSocket, server: &UdpSocket, to: SocketAddr) {
    client.send_to(b"?", to).unwrap();
    let mut byte = [0];
    let (_, from) = server.recv_from(&mut byte).unwrap();
    server.send_to(b"!", from).unwrap();
    assert_eq!(client.recv_from(&mut byte).unwrap(), (1, to));
}

/// The sender is told at once: its next call fails.
fn refused(client: &UdpSocket, to: SocketAddr) {
    client.connect(to).unwrap();
    // Where a rule of its own output refuses, sending itself may fail.
    let sent = client.send(b"?");
    let heard = client.recv(&mut [0]);
    let kind = sent.and(heard).unwrap_err().kind();
    assert!(!matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{to}: {kind}");
}

fn silent(server: &UdpSocket) {
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
}

#[test]
fn datagrams_pass_unless_they_are_blocked_in_both_directions() {
    for at in families() {
        let net = Net::new();
        let (app, outside) = (bind(&net, &net.world.pod, at.any, 5000, None), &net.peer);
        let server = bind(&net, outside, at.any, 6000, None);
        net.world.apply(&Ruleset::capture(&plain()));
        echo(&app, &server, (at.peer, 6000).into());
        echo(&server, &app, (at.pod, 5000).into());

        // Also what was under way: conntrack remembers both conversations.
        net.world.apply(&Ruleset::capture(&blocking()));
        refused(&bind(&net, &net.world.pod, at.any, 0, None), (at.peer, 6000).into());
        refused(&bind(&net, outside, at.any, 0, None), (at.pod, 5000).into());
        let _ = app.send_to(b"?", (at.peer, 6000));
        let _ = server.send_to(b"?", (at.pod, 5000));
        silent(&server);

        net.world.apply(&Ruleset::capture(&plain()));
        let fresh = bind(&net, &net.world.pod, at.any, 0, None);
        echo(&fresh, &server, (at.peer, 6000).into());
    }
}

#[test]
fn the_pod_talks_to_itself_and_icmp_passes() {
    for (at, localhost) in families().into_iter().zip(["127.0.0.1", "::1"]) {
        let net = Net::new();
        net.world.apply(&Ruleset::capture(&blocking()));
        let server = bind(&net, &net.world.pod, at.any, 5000, None);
        for own in [at.pod, localhost.parse().unwrap()] {
            let client = bind(&net, &net.world.pod, own, 0, None);
            echo(&client, &server, (own, 5000).into());
        }
        // Neighbours are found anew, and a closed port answers its error.
        net.ip(&net.world.pod, "neigh flush dev eth0");
        net.ip(&net.peer, "neigh flush dev eth0");
        for (netns, to) in [(&net.world.pod, at.peer), (&net.peer, at.pod)] {
            ping(&net, netns, to);
        }
    }
}

/// An echo request and its reply, over a raw socket.
fn ping(net: &Net, netns: &PodNetns, to: IpAddr) {
    let (domain, protocol, request, reply, header): (_, _, [u8; 8], u8, usize) = match to {
        // The checksum is of these eight bytes; for IPv6 the kernel puts it in.
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, [8, 0, 0xf7, 0xfd, 0, 1, 0, 1], 0, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1], 129, 0),
    };
    let make = move || Socket::new(domain, Type::RAW, Some(protocol));
    let mut socket = net.world.fence.run(netns, make).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&SocketAddr::from((to, 0)).into()).unwrap();
    socket.send(&request).unwrap();
    let mut packet = [0; 64];
    // Other ICMP of the same peer, as of neighbour discovery, may come before.
    while socket.read(&mut packet).unwrap() <= header || packet[header] != reply {}
}

#[test]
fn captured_lookups_work_and_others_are_blocked() {
    for (at, localhost) in families().into_iter().zip(["127.0.0.1", "::1"]) {
        let net = Net::new();
        let upstream = bind(&net, &net.peer, at.any, 53, None);
        net.world.apply(&Ruleset::capture(&blocking()));
        refused(&bind(&net, &net.world.pod, at.any, 0, None), (at.peer, 53).into());
        silent(&upstream);

        net.world.apply(&Ruleset::capture(&Options { dns: Dns::On, ..blocking() }));
        let localhost = localhost.parse().unwrap();
        let proxy = bind(&net, &net.world.pod, localhost, 15053, PROXY_MARK);
        let app = bind(&net, &net.world.pod, at.any, 0, None);
        echo(&app, &proxy, (at.peer, 53).into());
        let own = bind(&net, &net.world.pod, at.any, 0, PROXY_MARK);
        echo(&own, &upstream, (at.peer, 53).into());
        // A server elsewhere does not pass for an answer.
        let app = bind(&net, &net.world.pod, at.any, 5000, None);
        let _ = upstream.send_to(b"?", (at.pod, 5000));
        refused(&bind(&net, &net.peer, at.any, 0, None), (at.pod, 5000).into());
        silent(&app);
    }
}

#[test]
fn excluded_destinations_are_not_blocked() {
    for at in families() {
        let net = Net::new();
        let server = bind(&net, &net.peer, at.any, 6000, None);
        let app = bind(&net, &net.world.pod, at.any, 5000, None);
        let excluded = Options { out_skip_cidrs: [at.peer.into()].into(), ..blocking() };
        net.world.apply(&Ruleset::capture(&excluded));
        echo(&bind(&net, &net.world.pod, at.any, 0, None), &server, (at.peer, 6000).into());
        // The exclusion is about what the pod begins.
        refused(&bind(&net, &net.peer, at.any, 0, None), (at.pod, 5000).into());
        silent(&app);
    }
}

/// A container nested in the pod, behind an interface of the pod's.
struct Guest {
    net: Net,
    netns: PodNetns,
}

impl Guest {
    fn new(at: Addresses) -> Self {
        let net = Net::new();
        let netns = net.join(&net.world.pod, "vnet1");
        for (netns, device, v4, v6) in [
            (&net.world.pod, "vnet1", "10.88.0.1", "fd88::1"),
            (&netns, "eth0", "10.88.0.2", "fd88::2"),
        ] {
            net.address(netns, device, v4, v6);
        }
        let (family, gateway) =
            if at.pod.is_ipv4() { ("-4", "10.88.0.1") } else { ("-6", "fd88::1") };
        net.ip(&netns, &format!("{family} route add default via {gateway}"));
        let back = if at.pod.is_ipv4() { "10.88.0.0/24" } else { "fd88::/64" };
        net.ip(&net.peer, &format!("{family} route add {back} via {}", at.pod));
        let switches = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
        let forward = move || switches.map(|switch| std::fs::write(switch, "1").unwrap());
        net.world.fence.run(&net.world.pod, forward).unwrap();
        Self { net, netns }
    }

    fn captured(&self, change: impl FnOnce(&mut Options)) {
        let mut options = plain();
        change(&mut options);
        self.net.world.apply(&Ruleset::capture(&options));
    }
}

fn behind_vnet1(options: &mut Options) {
    options.guests = ["vnet1".to_owned()].into();
}

#[test]
fn what_guests_open_is_outbound_wherever_it_goes() {
    for at in families() {
        let guest = Guest::new(at);
        let net = &guest.net;
        let outbound = net.listen(&net.world.pod, "::".parse().unwrap(), 15001);
        let inbound = net.listen(&net.world.pod, "::".parse().unwrap(), 15006);
        let _app = net.listen(&net.world.pod, at.any, 8080);
        guest.captured(behind_vnet1);
        for to in [(at.peer, 9000), (at.pod, 8080)] {
            let mut client = net.open(&guest.netns, to).unwrap();
            let mut accepted = outbound.accept().unwrap().0;
            assert_eq!(netns::original_dst(&accepted).unwrap().0, to.into());
            talk(&mut client, &mut accepted);
        }
        // By other interfaces traffic arrives as ever.
        let mut client = net.open(&net.peer, (at.pod, 8080)).unwrap();
        talk(&mut client, &mut inbound.accept().unwrap().0);
    }
}

#[test]
fn exclusions_count_for_guests_too() {
    for at in families() {
        let guest = Guest::new(at);
        let net = &guest.net;
        let server = net.listen(&net.peer, at.any, 9000);
        let app = net.listen(&net.world.pod, at.any, 9000);
        for guests_are_named in [true, false] {
            guest.captured(|options| {
                options.out_skip = crate::support::ports(&[9000]);
                if guests_are_named {
                    behind_vnet1(options);
                }
            });
            let mut client = net.open(&guest.netns, (at.peer, 9000)).unwrap();
            talk(&mut client, &mut server.accept().unwrap().0);
            if guests_are_named {
                let mut client = net.open(&guest.netns, (at.pod, 9000)).unwrap();
                talk(&mut client, &mut app.accept().unwrap().0);
            }
        }
    }
}

#[test]
fn datagrams_of_guests_are_blocked_as_the_pods_own() {
    for at in families() {
        let guest = Guest::new(at);
        let net = &guest.net;
        let server = bind(net, &net.peer, at.any, 6000, None);
        guest.captured(|_| {});
        echo(&bind(net, &guest.netns, at.any, 0, None), &server, (at.peer, 6000).into());
        guest.captured(|options| options.uncaptured = Uncaptured::Block);
        refused(&bind(net, &guest.netns, at.any, 0, None), (at.peer, 6000).into());
        silent(&server);
        ping(net, &guest.netns, at.peer);
    }
}
