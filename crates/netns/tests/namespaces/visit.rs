//! Sockets that a thread makes in another namespace by itself.

use std::net::SocketAddr;

use netns::{Dial, Fence, Listen, VisitError, dial_socket_in, listen_tcp};

use crate::support::{PATIENCE, here, run, scratch};

fn dial(to: SocketAddr, from: Option<SocketAddr>) -> Dial {
    Dial { to, mark: Some(0x539), from }
}

#[test]
fn a_socket_is_born_in_the_namespace_and_the_thread_is_home() {
    let (fence, home) = (Fence::new(1).unwrap(), here());
    // The same address and port in each, so that only the namespace tells who answers.
    let pods: Vec<_> = (0..3)
        .map(|_| {
            let netns = scratch();
            run(&fence, &netns, "ip link set lo up");
            let addr = "127.0.0.1:7777".parse().unwrap();
            let listen = Listen { addr, backlog: 16, mark: None };
            let listener = fence.run(&netns, move || listen_tcp(&listen)).unwrap().unwrap();
            listener.set_nonblocking(false).unwrap();
            (netns, listener)
        })
        .collect();
    for (netns, listener) in pods.iter().chain(&pods) {
        let to = listener.local_addr().unwrap();
        let socket = dial_socket_in(netns, &dial(to, None)).unwrap();
        assert_eq!(here(), home);
        assert_eq!(socket.mark().unwrap(), 0x539);
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(Some(peer), socket.local_addr().unwrap().as_socket());
    }
}

#[test]
fn an_error_inside_leaves_the_thread_at_home() {
    let (netns, home) = (scratch(), here());
    let to = "127.0.0.1:1".parse().unwrap();
    // Loopback is down and the families differ: bind fails inside.
    let wrong_family = Some("[::1]:0".parse().unwrap());
    let error = dial_socket_in(&netns, &dial(to, wrong_family)).unwrap_err();
    assert!(matches!(error, VisitError::Socket(_)), "{error}");
    assert_eq!(here(), home);
}

#[test]
fn threads_have_homes_of_their_own() {
    let (fence, pod, other) = (Fence::new(1).unwrap(), scratch(), scratch());
    let to = "127.0.0.1:1".parse().unwrap();
    dial_socket_in(&pod, &dial(to, None)).unwrap();
    let home = here();
    // A fence worker that is inside a pod calls that its home.
    let seen = fence
        .run(&other, move || {
            let before = here();
            dial_socket_in(&pod, &dial(to, None)).unwrap();
            (before, here())
        })
        .unwrap();
    assert_eq!(seen.0, seen.1);
    assert_ne!(seen.0, home);
}
