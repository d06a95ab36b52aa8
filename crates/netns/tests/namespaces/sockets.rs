//! Sockets as in-pod proxies need them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use netns::{
    Dial, Fence, Listen, PodNetns, dial_socket, dial_udp, listen_tcp, listen_udp, original_dst,
    original_udp_dst,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::SockRef;

use crate::support::{PATIENCE, eventually, run, run_with, scratch};

/// A namespace with loopback up, and the means to make sockets in it.
struct Pod {
    fence: Fence,
    netns: PodNetns,
}

impl Pod {
    fn new() -> Self {
        let pod = Self { fence: Fence::new(1).unwrap(), netns: scratch() };
        run(&pod.fence, &pod.netns, "ip link set lo up");
        pod
    }

    fn try_listen(&self, addr: &str) -> io::Result<TcpListener> {
        let listen = Listen { addr: addr.parse().unwrap(), backlog: 16, mark: Some(0x539) };
        self.fence.run(&self.netns, move || listen_tcp(&listen)).unwrap()
    }

    /// A listener whose `accept` waits, but not for ever.
    fn listen(&self, addr: &str) -> TcpListener {
        let listener = self.try_listen(addr).unwrap();
        listener.set_nonblocking(false).unwrap();
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        listener
    }

    fn dial(&self, to: &str) -> io::Result<TcpStream> {
        let dial = Dial { to: to.parse().unwrap(), mark: None, from: None };
        let socket = self.fence.run(&self.netns, move || dial_socket(&dial)).unwrap()?;
        socket.connect_timeout(&dial.to.into(), PATIENCE)?;
        Ok(socket.into())
    }

    fn redirect_8080(&self, to: u16) {
        let rules = format!(
            "table inet t {{\nchain c {{\ntype nat hook output priority -100;\n\
             tcp dport 8080 redirect to :{to}\n}}\n}}\n"
        );
        run_with(&self.fence, &self.netns, "nft -f -", &rules);
    }
}

/// One byte there and one back.
fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    send(client, server);
    send(server, client);
}

fn send(from: &mut TcpStream, to: &mut TcpStream) {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    to.set_nonblocking(false).unwrap();
    from.write_all(b"?").unwrap();
    to.read_exact(&mut [0]).unwrap();
}

#[test]
fn sockets_belong_to_the_namespace_they_were_made_in() {
    let (a, b) = (Pod::new(), Pod::new());
    let (at_a, at_b) = (a.listen("127.0.0.1:8080"), b.listen("127.0.0.1:8080"));
    let mut client = a.dial("127.0.0.1:8080").unwrap();
    talk(&mut client, &mut at_a.accept().unwrap().0);
    at_b.set_nonblocking(true).unwrap();
    assert_eq!(at_b.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_listener_is_ready_for_an_event_loop() {
    let pod = Pod::new();
    let listener = pod.try_listen("[::]:15001").unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let flags = FdFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    assert_eq!(SockRef::from(&listener).mark().unwrap(), 0x539);
    assert!(!SockRef::from(&listener).reuse_port().unwrap(), "nobody may share the port");
}

#[test]
fn a_dual_stack_listener_serves_both_families_alone() {
    let pod = Pod::new();
    let listener = pod.listen("[::]:15001");
    for to in ["127.0.0.1:15001", "[::1]:15001"] {
        let mut client = pod.dial(to).unwrap();
        talk(&mut client, &mut listener.accept().unwrap().0);
    }
    for addr in ["0.0.0.0:15001", "127.0.0.1:15001", "[::1]:15001"] {
        assert_eq!(pod.try_listen(addr).unwrap_err().kind(), ErrorKind::AddrInUse, "{addr}");
    }
}

#[test]
fn a_dialling_socket_carries_its_mark_and_does_not_block() {
    let pod = Pod::new();
    let dial = Dial { to: "127.0.0.1:1".parse().unwrap(), mark: Some(0x539), from: None };
    let socket = pod.fence.run(&pod.netns, move || dial_socket(&dial)).unwrap().unwrap();
    assert_eq!(socket.mark().unwrap(), 0x539);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.nonblocking().unwrap());
    assert!(socket.as_raw_fd() > 2);
}

fn check_original_dst(listen: &str, dialled: &str) {
    let pod = Pod::new();
    let proxy = pod.listen(listen);
    let port = proxy.local_addr().unwrap().port();
    pod.redirect_8080(port);
    let mut client = pod.dial(dialled).unwrap();
    let (mut accepted, _) = proxy.accept().unwrap();
    let found = original_dst(&accepted).unwrap();
    assert_eq!(found.0, dialled.parse::<SocketAddr>().unwrap());
    assert_eq!(found.to_string(), dialled);
    talk(&mut client, &mut accepted);
}

#[test]
fn original_destination_ipv4() {
    check_original_dst("127.0.0.1:15001", "127.0.0.7:8080");
}

#[test]
fn original_destination_ipv6() {
    check_original_dst("[::1]:15001", "[::1]:8080");
}

#[test]
fn original_destination_on_a_dual_stack_listener() {
    check_original_dst("[::]:15001", "127.0.0.7:8080");
    check_original_dst("[::]:15001", "[::1]:8080");
}

#[test]
fn without_a_redirect_the_original_destination_is_the_socket_itself() {
    let pod = Pod::new();
    // Of other connections: without any redirect there is no conntrack to ask.
    pod.redirect_8080(15001);
    let proxy = pod.listen("127.0.0.1:15001");
    let _client = pod.dial("127.0.0.1:15001").unwrap();
    let (accepted, _) = proxy.accept().unwrap();
    assert_eq!(original_dst(&accepted).unwrap().0, proxy.local_addr().unwrap());
}

#[test]
fn unknown_connections_have_no_original_destination() {
    let pod = Pod::new();
    let listener = pod.listen("127.0.0.1:8080");
    let _client = pod.dial("127.0.0.1:8080").unwrap();
    assert!(original_dst(&listener.accept().unwrap().0).is_err());
}

#[test]
fn a_foreign_source_address_can_be_used() {
    for (own, foreign, family, at_once) in
        [("10.1.1.1", "198.51.100.7", "-4", ""), ("fd11::1", "fd99::7", "-6", " nodad")]
    {
        let pod = Pod::new();
        let address = format!("ip {family} addr add {own} dev lo{at_once}");
        run(&pod.fence, &pod.netns, &address);
        let (own, foreign): (IpAddr, IpAddr) = (own.parse().unwrap(), foreign.parse().unwrap());
        let to = SocketAddr::new(own, 9000);
        let server = pod.listen(&to.to_string());
        // The kernel makes an IPv6 address reachable in its own time, duplicate detection
        // or not.
        eventually("the address is reachable", || pod.dial(&to.to_string()).is_ok());
        server.accept().unwrap();
        let dial = Dial { to, mark: None, from: Some(SocketAddr::new(foreign, 0)) };
        let socket = pod.fence.run(&pod.netns, move || dial_socket(&dial)).unwrap().unwrap();
        // Only now: with the route in place the address would not be foreign any more.
        let answers = format!("ip {family} route add local {foreign} dev lo");
        run(&pod.fence, &pod.netns, &answers);
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        let (mut accepted, from) = server.accept().unwrap();
        assert_eq!(from.ip(), foreign);
        talk(&mut socket.into(), &mut accepted);
    }
}

#[test]
fn clients_of_one_address_reach_more_destinations_than_there_are_ports() {
    for (client, servers) in [
        ("127.0.0.9", ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80"]),
        ("::1", ["[::1]:80", "[::1]:81", "[::1]:82"]),
    ] {
        let pod = Pod::new();
        let ports = "/proc/sys/net/ipv4/ip_local_port_range";
        pod.fence.run(&pod.netns, move || std::fs::write(ports, "40000 40001")).unwrap().unwrap();
        let listeners = servers.map(|server| pod.listen(server));
        let clients = servers.map(|server| {
            let dial = Dial {
                to: server.parse().unwrap(),
                mark: None,
                from: Some(SocketAddr::new(client.parse().unwrap(), 0)),
            };
            let made = pod.fence.run(&pod.netns, move || dial_socket(&dial));
            let socket = made.unwrap().unwrap();
            socket.connect_timeout(&dial.to.into(), PATIENCE).unwrap();
            TcpStream::from(socket)
        });
        for (mut client, listener) in clients.into_iter().zip(listeners) {
            talk(&mut client, &mut listener.accept().unwrap().0);
        }
    }
}

fn check_original_udp_dst(listener: &str, dialled: &str) {
    let pod = Pod::new();
    let listener: SocketAddr = listener.parse().unwrap();
    let dialled: SocketAddr = dialled.parse().unwrap();
    let rules = format!(
        "table inet t {{\nchain c {{\ntype nat hook output priority -100;\n\
         udp dport 53 redirect to :{}\n}}\n}}\n",
        listener.port(),
    );
    run_with(&pod.fence, &pod.netns, "nft -f -", &rules);
    let server = pod.fence.run(&pod.netns, move || listen_udp(listener, None, 4096));
    let server = server.unwrap().unwrap();
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |to| {
        let client = pod.fence.run(&pod.netns, move || dial_udp(to, Some(0x539))).unwrap().unwrap();
        client.send(b"?").unwrap();
        let from = server.recv_from(&mut [0]).unwrap().1;
        let job = move || original_udp_dst(from, listener);
        (pod.fence.run(&pod.netns, job).unwrap().unwrap().0, from, client)
    };
    assert_eq!(ask(dialled).0, dialled);
    let (found, from, _client) = ask(listener);
    assert_eq!(found, listener, "nobody has redirected it");
    let stranger = SocketAddr::new(from.ip(), if from.port() == 1 { 2 } else { 1 });
    let unknown = pod.fence.run(&pod.netns, move || original_udp_dst(stranger, listener));
    assert_eq!(unknown.unwrap().unwrap_err().raw_os_error(), Some(no_entry()));
}

fn no_entry() -> i32 {
    nix::errno::Errno::ENOENT as i32
}

#[test]
fn original_destination_of_a_datagram() {
    check_original_udp_dst("127.0.0.1:15053", "127.0.0.7:53");
    check_original_udp_dst("[::1]:15053", "[::1]:53");
}
