//! Name servers on sockets that outlive their ztunnel.

use std::collections::HashSet;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::super::world::soon;
use super::stories::{code, echo, exchange, query, receive, view_with_a_service};
use super::world::{Over, RESOLVERS, World, at, frame, read_frame};
use crate::dns::Mode;
use crate::proxy::{Drain, NameServer, PodProxy};
use crate::source::ViewHandle;

const LONG: Duration = Duration::from_secs(20);

fn world() -> World {
    World::new(ViewHandle::fixed(view_with_a_service()), |_| ())
}

async fn until(what: &str, fulfilled: impl Fn() -> bool) {
    let poll = async {
        while !fulfilled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Looks up a service again and again, over both families, each time as somebody else.
/// How often it was answered.
async fn lookups(world: &World, stop: &CancellationToken) -> usize {
    let mut answered = 0;
    while !stop.is_cancelled() {
        for address in &RESOLVERS[..2] {
            let asked = query(3, "till.bank", 1);
            let answer = exchange(&world.ask(at(address)), &asked).await;
            assert_eq!((code(&answer), answer[7]), (0, 1), "answered from the view");
            answered += 1;
        }
    }
    answered
}

#[tokio::test]
async fn while_one_ztunnel_replaces_the_other_every_lookup_is_answered() {
    let world = world();
    let held = world.held();
    let name_server = || NameServer::On(held.clone());
    let stop = CancellationToken::new();
    let replace = async {
        let mut old = world.start_on(name_server()).await;
        for _ in 0..5 {
            let new = world.start_on(name_server()).await;
            // Both read from the same sockets for a while.
            for _ in 0..20 {
                exchange(&world.ask(at(RESOLVERS[0])), &query(1, "till.bank", 1)).await;
            }
            old.stop(Drain::Graceful(LONG)).await;
            old = new;
        }
        stop.cancel();
        old
    };
    let (_last, answered) = tokio::join!(replace, lookups(&world, &stop));
    assert!(answered > 20, "{answered} lookups");
    assert_eq!(world.listening(15_053), 4, "it was always the same sockets");
}

/// An agent that holds no sockets: the next ztunnel binds its own beside the old one's.
#[tokio::test]
async fn two_ztunnels_that_bind_for_themselves_answer_side_by_side() {
    let world = world();
    let old = world.start().await;
    let new = world.start().await;
    assert_eq!(world.listening(15_053), 8, "each has its own sockets");
    let answered = async || {
        for _ in 0..20 {
            let answer = exchange(&world.ask(at(RESOLVERS[0])), &query(3, "till.bank", 1)).await;
            assert_eq!((code(&answer), answer[7]), (0, 1), "answered from the view");
            let mut tcp = world.dial(at(RESOLVERS[0])).await;
            tcp.write_all(&frame(&query(4, "till.bank", 1))).await.unwrap();
            assert_eq!(code(&soon(read_frame(&mut tcp)).await.unwrap()), 0);
        }
    };
    answered().await;
    old.stop(Drain::Graceful(LONG)).await;
    assert_eq!(world.listening(15_053), 4, "the old one's are closed");
    answered().await;
    new.stop(Drain::Immediate).await;
}

#[tokio::test]
async fn a_lookup_waits_while_there_is_no_ztunnel() {
    let world = world();
    let held = world.held();
    let asked = query(7, "till.bank", 1);
    let dead: PodProxy = world.start_on(NameServer::On(held.clone())).await;
    dead.stop(Drain::Immediate).await;
    let sockets = RESOLVERS.map(|address| world.ask(at(address)));
    for socket in &sockets {
        socket.send(&asked).await.unwrap();
    }
    let mut tcp = world.dial(at(RESOLVERS[0])).await;
    tcp.write_all(&frame(&asked)).await.unwrap();

    let _next = world.start_on(NameServer::On(held)).await;
    for socket in &sockets {
        assert_eq!(receive(socket).await[..2], asked[..2]);
    }
    assert_eq!(soon(read_frame(&mut tcp)).await.unwrap()[..2], asked[..2]);
}

/// Whoever reads a lookup answers it, also when he is about to end.
#[tokio::test]
async fn what_an_old_ztunnel_has_read_it_answers_while_it_drains() {
    fn slow(query: &[u8], over: Over) -> Option<Vec<u8>> {
        std::thread::sleep(Duration::from_millis(1));
        echo(query, over)
    }
    let world = world();
    let resolver = world.resolver(RESOLVERS[0], slow);
    let held = world.held();
    let old = world.start_on(NameServer::On(held.clone())).await;
    let socket = world.ask(at(RESOLVERS[0]));
    let all: HashSet<u16> = (0..200).collect();
    for &id in &all {
        socket.send(&query(id, "example.org", 1)).await.unwrap();
    }
    until("some are on their way", || !resolver.heard.lock().unwrap().is_empty()).await;
    let new = world.start_on(NameServer::On(held)).await;
    let drained = tokio::spawn(old.stop(Drain::Graceful(LONG)));
    let mut answered = HashSet::new();
    while answered.len() < all.len() {
        let answer = receive(&socket).await;
        assert_eq!(code(&answer), 0);
        let fresh = answered.insert(u16::from_be_bytes([answer[0], answer[1]]));
        assert!(fresh, "each by one of them");
    }
    soon(drained).await.unwrap();
    drop(new);
}

#[tokio::test]
async fn a_name_server_comes_and_goes_with_the_redirect() {
    let world = world();
    let mut proxy = world.start_on(NameServer::None).await;
    let asked = query(7, "till.bank", 1);
    assert_eq!((world.listening(15_053), proxy.listeners().len()), (0, 3));
    for _ in 0..2 {
        proxy.adopt(Vec::new(), NameServer::On(Vec::new())).await.unwrap();
        assert_eq!((world.listening(15_053), proxy.listeners().len()), (4, 7), "bound here");
        exchange(&world.ask(at(RESOLVERS[1])), &asked).await;
        proxy.adopt(Vec::new(), NameServer::On(Vec::new())).await.expect("as before");
        proxy.adopt(Vec::new(), NameServer::AsConfigured).await.expect("as before");
        assert_eq!(proxy.listeners().len(), 7);
        proxy.adopt(Vec::new(), NameServer::None).await.unwrap();
        until("the port is free", || world.listening(15_053) == 0).await;
        assert_eq!(proxy.listeners().len(), 3);
    }
    let held = world.held();
    proxy.adopt(Vec::new(), NameServer::On(held.clone())).await.unwrap();
    proxy.adopt(Vec::new(), NameServer::On(held)).await.expect("the same again");
    assert_eq!((world.listening(15_053), proxy.listeners().len()), (4, 7));
    exchange(&world.ask(at(RESOLVERS[1])), &asked).await;
    proxy.stop(Drain::Immediate).await;
}

#[tokio::test]
async fn sockets_that_cannot_be_had_hurt_the_name_server_only() {
    let world = world();
    let mut proxy = world.start_on(NameServer::None).await;
    let taken = world.held();
    let error = proxy.adopt(Vec::new(), NameServer::On(Vec::new())).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:15053"), "{error}");
    assert_eq!(proxy.listeners().len(), 3);
    drop(taken);
    proxy.adopt(Vec::new(), NameServer::On(Vec::new())).await.expect("now it is free");
}

#[tokio::test]
async fn a_ztunnel_without_name_servers_closes_what_it_is_given() {
    let off = World::new(ViewHandle::fixed(view_with_a_service()), |settings| {
        settings.dns.mode = Mode::Off;
    });
    let _proxy = off.start_on(NameServer::On(off.held())).await;
    assert_eq!(off.listening(15_053), 0);
}
