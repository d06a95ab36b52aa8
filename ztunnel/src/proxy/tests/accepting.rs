//! Who is woken by a connection that arrives.

use std::collections::BTreeSet;
use std::fs;

use super::world::World;

/// The places at which this process waits for a socket: each runtime that watches it has
/// one of its own, whose number is in what proc(5) tells of its epoll.
fn watched_at(inode: u64) -> BTreeSet<String> {
    let needle = format!(" ino:{inode:x} ");
    let mut places = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        // Of other tests in this process some go away meanwhile.
        let Ok(text) = entry.and_then(|entry| fs::read_to_string(entry.path())) else { continue };
        for line in text.lines().filter(|line| line.starts_with("tfd:") && line.contains(&needle)) {
            let (_, place) = line.split_once("data:").unwrap();
            places.insert(place.split_whitespace().next().unwrap().to_owned());
        }
    }
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_arrives_wakes_one_worker() {
    let world = World::new();
    let server = world.start(&world.server).await.unwrap();
    assert!(world.context.workers.all().len() > 1);
    let listeners = server.listeners();
    assert_eq!(listeners.len(), 3 + zds::ListenAt::LOOKUPS.len());
    for listener in &listeners {
        let facts = match listener.at.carries() {
            zds::Carries::Connections => netns::inspect_listener(listener),
            zds::Carries::Datagrams => netns::inspect_datagrams(listener),
        };
        let inode = facts.unwrap().inode;
        let places = watched_at(inode);
        assert_eq!(places.len(), 1, "{}: {places:?}", listener.at);
    }
}
