//! What the rules do to connections.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use capture::{Dns, Inbound, Options, Ruleset, removal};
use netns::{Dial, PodNetns, original_dst};

use crate::net::{Net, PATIENCE, PROXY_MARK, families, talk};
use crate::support::{plain, ports};
use crate::world::succeed;

fn refused(result: io::Result<TcpStream>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_arrives_lands_at_the_proxy() {
    for at in families() {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        let proxy = net.listen(&net.world.pod, "::".parse().unwrap(), 15006);
        net.world.apply(&Ruleset::capture(&plain()));
        let mut client = net.open(&net.peer, (at.pod, 8080)).unwrap();
        let (mut accepted, from) = proxy.accept().unwrap();
        assert_eq!(original_dst(&accepted).unwrap().0, (at.pod, 8080).into());
        assert_eq!(from.ip().to_canonical(), at.peer);
        talk(&mut client, &mut accepted);
        app.set_nonblocking(true).unwrap();
        assert_eq!(app.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn what_the_pod_opens_lands_at_the_proxy() {
    for at in families() {
        let net = Net::new();
        let server = net.listen(&net.peer, at.any, 9000);
        let proxy = net.listen(&net.world.pod, "::".parse().unwrap(), 15001);
        net.world.apply(&Ruleset::capture(&plain()));
        let mut client = net.open(&net.world.pod, (at.peer, 9000)).unwrap();
        let (mut accepted, _) = proxy.accept().unwrap();
        assert_eq!(original_dst(&accepted).unwrap().0, (at.peer, 9000).into());
        talk(&mut client, &mut accepted);
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn the_proxys_own_sockets_pass() {
    for at in families() {
        let net = Net::new();
        let server = net.listen(&net.peer, at.any, 9000);
        net.world.apply(&Ruleset::capture(&plain()));
        refused(net.open(&net.world.pod, (at.peer, 9000)));
        let dial = Dial { to: (at.peer, 9000).into(), mark: PROXY_MARK, from: None };
        let mut client = net.dial(&net.world.pod, dial).unwrap();
        talk(&mut client, &mut server.accept().unwrap().0);
    }
}

#[test]
fn without_a_proxy_nothing_is_sent_in_the_clear() {
    for at in families() {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        let server = net.listen(&net.peer, at.any, 9000);
        net.world.apply(&Ruleset::capture(&plain()));
        refused(net.open(&net.peer, (at.pod, 8080)));
        refused(net.open(&net.world.pod, (at.peer, 9000)));
        for listener in [app, server] {
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }
}

#[test]
fn what_escapes_the_redirect_is_reset() {
    for at in families() {
        let net = Net::new();
        let _app = net.listen(&net.world.pod, at.any, 8080);
        let _server = net.listen(&net.peer, at.any, 9000);
        let _proxies = [15001, 15006].map(|port| net.listen(&net.world.pod, at.any, port));
        net.world.apply(&Ruleset::capture(&plain()));
        let damage = "flush chain inet sluice nat_pre\nflush chain inet sluice nat_out";
        succeed(&net.world.nft(damage));
        refused(net.open(&net.peer, (at.pod, 8080)));
        refused(net.open(&net.world.pod, (at.peer, 9000)));
    }
}

#[test]
fn nobody_dials_the_proxys_ports() {
    for at in families() {
        let options = Options { dns: Dns::On, ..plain() };
        for ruleset in [Ruleset::capture(&options), Ruleset::drain(&options)] {
            let net = Net::new();
            net.world.apply(&ruleset);
            for port in [15001, 15006, 15053] {
                let _proxy = net.listen(&net.world.pod, at.any, port);
                refused(net.open(&net.peer, (at.pod, port)));
                refused(net.open(&net.world.pod, (at.pod, port)));
            }
            let tunnel = net.listen(&net.world.pod, at.any, 15008);
            let mut client = net.open(&net.peer, (at.pod, 15008)).unwrap();
            talk(&mut client, &mut tunnel.accept().unwrap().0);
        }
    }
}

#[test]
fn the_pod_talks_to_itself_directly() {
    for (at, localhost) in families().into_iter().zip(["127.0.0.1", "::1"]) {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        net.world.apply(&Ruleset::capture(&plain()));
        for own in [at.pod, localhost.parse().unwrap()] {
            let mut client = net.open(&net.world.pod, (own, 8080)).unwrap();
            talk(&mut client, &mut app.accept().unwrap().0);
        }
    }
}

#[test]
fn the_application_sees_the_clients_address() {
    for at in families() {
        let net = Net::new();
        net.route_answers();
        let app = net.listen(&net.world.pod, at.any, 8080);
        net.world.apply(&Ruleset::capture(&plain()));
        let dial =
            Dial { to: (at.pod, 8080).into(), mark: PROXY_MARK, from: Some((at.peer, 0).into()) };
        let mut proxy = net.dial(&net.world.pod, dial).unwrap();
        let (mut accepted, from) = app.accept().unwrap();
        assert_eq!(from.ip(), at.peer);
        talk(&mut proxy, &mut accepted);
        let closed = Dial { to: (at.pod, 8081).into(), ..dial };
        refused(net.dial(&net.world.pod, closed));
    }
}

#[test]
fn exclusions_are_direct() {
    for at in families() {
        let net = Net::new();
        let inbound = net.listen(&net.world.pod, at.any, 8080);
        let outbound = net.listen(&net.peer, at.any, 9000);
        let by_port = Options { in_skip: ports(&[8080]), out_skip: ports(&[9000]), ..plain() };
        let by_network = Options { out_skip_cidrs: [at.peer.into()].into(), ..by_port.clone() };
        let by_network = Options { out_skip: ports(&[]), ..by_network };
        for options in [by_port, by_network] {
            net.world.apply(&Ruleset::capture(&options));
            let mut client = net.open(&net.peer, (at.pod, 8080)).unwrap();
            talk(&mut client, &mut inbound.accept().unwrap().0);
            let mut client = net.open(&net.world.pod, (at.peer, 9000)).unwrap();
            talk(&mut client, &mut outbound.accept().unwrap().0);
        }
    }
}

#[test]
fn probes_reach_declared_ports_only() {
    for at in families() {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        let _other = net.listen(&net.world.pod, at.any, 8081);
        let mut options = plain();
        options.probes.ports = [8080].into();
        options.probes.sources = [at.peer].into();
        net.world.apply(&Ruleset::capture(&options));
        let mut probe = net.open(&net.peer, (at.pod, 8080)).unwrap();
        talk(&mut probe, &mut app.accept().unwrap().0);
        refused(net.open(&net.peer, (at.pod, 8081)));
    }
}

#[test]
fn a_gateway_receives_directly_and_is_captured_outbound() {
    for at in families() {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        let _server = net.listen(&net.peer, at.any, 9000);
        net.world.apply(&Ruleset::capture(&Options { inbound: Inbound::Bypass, ..plain() }));
        let mut client = net.open(&net.peer, (at.pod, 8080)).unwrap();
        talk(&mut client, &mut app.accept().unwrap().0);
        refused(net.open(&net.world.pod, (at.peer, 9000)));
    }
}

#[test]
fn lookups_go_to_the_proxy_when_asked_to() {
    for (at, localhost) in families().into_iter().zip(["127.0.0.1", "::1"]) {
        let net = Net::new();
        let bind = |addr: IpAddr, port: u16| {
            let job = move || UdpSocket::bind((addr, port));
            let socket = net.world.fence.run(&net.world.pod, job).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let proxy = bind(localhost.parse().unwrap(), 15053);
        let app = bind(at.any, 0);
        net.world.apply(&Ruleset::capture(&Options { dns: Dns::On, ..plain() }));
        app.connect((at.peer, 53)).unwrap();
        app.send(b"?").unwrap();
        let mut byte = [0];
        let (_, from) = proxy.recv_from(&mut byte).unwrap();
        proxy.send_to(b"!", from).unwrap();
        // The socket is connected: only an answer from the asked server arrives.
        assert_eq!(app.recv(&mut byte).unwrap(), 1);
        let tcp = net.listen(&net.world.pod, localhost.parse().unwrap(), 15053);
        let mut client = net.open(&net.world.pod, (at.peer, 53)).unwrap();
        let mut accepted = tcp.accept().unwrap().0;
        assert_eq!(original_dst(&accepted).unwrap().0, (at.peer, 53).into());
        talk(&mut client, &mut accepted);
    }
}

/// What conntrack remembers of a port's former user does not concern the next one.
#[test]
fn proxy_and_application_may_ask_from_the_same_port_in_turn() {
    for (at, localhost) in families().into_iter().zip(["127.0.0.1", "::1"]) {
        let net = Net::new();
        net.world.apply(&Ruleset::capture(&Options { dns: Dns::On, ..plain() }));
        let bind = |netns: &PodNetns, addr: SocketAddr, mark| {
            let deadline = Instant::now() + PATIENCE;
            let socket = loop {
                let job = move || netns::listen_udp(addr, mark, 4096);
                match net.world.fence.run(netns, job).unwrap() {
                    // Another test's program, between fork and exec, still has our last one.
                    Err(error) if error.kind() == ErrorKind::AddrInUse => {
                        assert!(Instant::now() < deadline, "{addr} stays in use");
                        std::thread::yield_now();
                    }
                    bound => break bound.unwrap(),
                }
            };
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let proxy =
            bind(&net.world.pod, (localhost.parse::<IpAddr>().unwrap(), 15053).into(), PROXY_MARK);
        let server = bind(&net.peer, (at.peer, 53).into(), None);
        for port in [40_001, 40_002] {
            let from = SocketAddr::from((at.any, port));
            // The order is another one for each port.
            for step in 0..4 {
                let (mark, receiver) =
                    if (step + port) % 2 == 0 { (PROXY_MARK, &server) } else { (None, &proxy) };
                let client = bind(&net.world.pod, from, mark);
                client.connect((at.peer, 53)).unwrap();
                client.send(b"?").unwrap();
                let mut byte = [0];
                let (_, peer) = receiver.recv_from(&mut byte).unwrap();
                receiver.send_to(b"!", peer).unwrap();
                assert_eq!(client.recv(&mut byte).unwrap(), 1, "from {port}, step {step}");
            }
        }
    }
}

/// A pod's connections through its whole life in the mesh, and after.
#[test]
fn connections_outlive_capture_drain_and_release() {
    for at in families() {
        let net = Net::new();
        let app = net.listen(&net.world.pod, at.any, 8080);
        let proxy = net.listen(&net.world.pod, "::".parse().unwrap(), 15006);
        let connect = |listener: &TcpListener| {
            let client = net.open(&net.peer, (at.pod, 8080)).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let mut before = connect(&app);
        talk(&mut before.0, &mut before.1);

        net.world.apply(&Ruleset::capture(&plain()));
        talk(&mut before.0, &mut before.1);
        talk(&mut before.1, &mut before.0);
        let mut during = connect(&proxy);

        net.world.apply(&Ruleset::capture(&plain()));
        talk(&mut during.0, &mut during.1);

        net.world.apply(&Ruleset::drain(&plain()));
        talk(&mut during.0, &mut during.1);
        talk(&mut during.1, &mut during.0);
        let mut after = connect(&app);
        talk(&mut after.0, &mut after.1);
        drop(during);

        succeed(&net.world.load_json(&removal()));
        talk(&mut after.0, &mut after.1);
        talk(&mut before.0, &mut before.1);
    }
}

#[test]
fn drained_connections_towards_the_application_keep_their_source() {
    for at in families() {
        let net = Net::new();
        net.route_answers();
        let app = net.listen(&net.world.pod, at.any, 8080);
        net.world.apply(&Ruleset::capture(&plain()));
        let from = Some((at.peer, 0).into());
        let dial = Dial { to: (at.pod, 8080).into(), mark: PROXY_MARK, from };
        let mut proxy = net.dial(&net.world.pod, dial).unwrap();
        let mut accepted = app.accept().unwrap().0;
        net.world.apply(&Ruleset::drain(&plain()));
        talk(&mut proxy, &mut accepted);
    }
}
