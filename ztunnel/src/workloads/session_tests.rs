use std::os::fd::OwnedFd;

use netns::NetnsId;

use super::*;
use crate::proxy::{Claim, GivenListener, Listeners, NameServer};

type S = Session<()>;
type A = Action<()>;

fn netns(ino: u64) -> NetnsId {
    NetnsId { dev: 4, ino, cookie: Some(ino) }
}

fn pod(uid: &str, ino: u64) -> Pod<()> {
    let info = WorkloadInfo {
        name: format!("pod-{uid}"),
        namespace: "shop".to_owned(),
        service_account: "default".to_owned(),
    };
    let listeners = Listeners::ToBind(Claim::Shared);
    let name_server = NameServer::AsConfigured;
    Pod { uid: uid.to_owned(), info, id: netns(ino), netns: (), listeners, name_server }
}

fn add(uid: &str, ino: u64) -> Event<()> {
    Event::Request(Request::Add(pod(uid, ino), GiveBack::NotAsked))
}

fn keep(uid: &str) -> Event<()> {
    Event::Request(Request::Keep(uid.to_owned(), GiveBack::NotAsked))
}

fn del(uid: &str) -> Event<()> {
    Event::Request(Request::Del(uid.to_owned()))
}

fn snapshot() -> Event<()> {
    Event::Request(Request::SnapshotSent)
}

fn up(uid: &str) -> Event<()> {
    Event::Started(uid.to_owned(), Ok(()))
}

fn failed(uid: &str) -> Event<()> {
    Event::Started(uid.to_owned(), Err("port taken".to_owned()))
}

fn start(uid: &str, ino: u64) -> A {
    Action::Start(pod(uid, ino))
}

fn stop(uid: &str) -> A {
    Action::Stop(uid.to_owned())
}

fn ack() -> A {
    Action::Ack(Ok(()))
}

fn nack() -> A {
    Action::Ack(Err("port taken".to_owned()))
}

/// A story: each event with the actions that it must cause.
fn story(steps: Vec<(Event<()>, Vec<A>)>) -> S {
    let mut session = S::new();
    for (step, (event, expected)) in steps.into_iter().enumerate() {
        let told = format!("step {step}: {event:?}");
        assert_eq!(session.on(event), expected, "{told}");
    }
    session
}

fn running(session: &S) -> Vec<&str> {
    session.running.keys().map(String::as_str).collect()
}

/// A live session with the pods `a` and `b` running.
fn live() -> S {
    story(vec![
        (Event::Connected, vec![]),
        (add("a", 1), vec![start("a", 1)]),
        (up("a"), vec![ack()]),
        (add("b", 2), vec![start("b", 2)]),
        (up("b"), vec![ack()]),
        (snapshot(), vec![ack()]),
    ])
}

#[test]
fn a_snapshot_starts_each_pod_and_then_ready() {
    let mut session = S::new();
    assert_eq!(session.waiting(), Some("a connection to the node agent"));
    session.on(Event::Connected);
    assert_eq!(session.waiting(), Some("the node agent's snapshot"));
    session.on(add("a", 1));
    assert!(session.owes_ack(), "the ack waits for the proxy");
    assert_eq!(session.on(up("a")), [ack()]);
    assert!(!session.owes_ack());
    assert_eq!(session.on(snapshot()), [ack()]);
    assert!(session.waiting().is_none());
}

#[test]
fn an_add_of_what_runs_is_acknowledged_and_nothing_else() {
    let mut session = live();
    assert_eq!(session.on(add("a", 1)), [ack()]);
    assert_eq!(running(&session), ["a", "b"]);
}

#[test]
fn another_namespace_replaces_the_pod() {
    let mut session = live();
    assert_eq!(session.on(add("a", 9)), [stop("a"), start("a", 9)]);
    assert_eq!(session.on(up("a")), [ack()]);
    assert_eq!(session.running["a"].id, netns(9));
}

#[test]
fn a_namespace_with_a_reused_inode_is_another_one() {
    let mut session = live();
    let mut reused = pod("a", 1);
    reused.id.cookie = Some(77);
    let expected = Action::Start(reused.clone());
    assert_eq!(
        session.on(Event::Request(Request::Add(reused, GiveBack::NotAsked))),
        [stop("a"), expected]
    );
}

#[test]
fn a_failed_pod_is_pending_until_it_works() {
    let session = story(vec![
        (Event::Connected, vec![]),
        (add("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
        (snapshot(), vec![ack()]),
    ]);
    assert_eq!(session.pending_count(), 1);
    assert_eq!(session.waiting(), None, "one bad pod hurts one pod");
    let mut session = session;
    assert_eq!(session.on(Event::Tick), [start("a", 1)]);
    assert_eq!(session.on(Event::Tick), [], "one attempt at a time");
    assert!(!session.owes_ack(), "a retry blocks no request");
    assert_eq!(session.pending_count(), 1, "still not served");
    assert_eq!(session.on(failed("a")), [], "nobody asked, nobody is answered");
    assert_eq!(session.on(Event::Tick), [start("a", 1)]);
    assert_eq!(session.on(up("a")), []);
    assert_eq!(session.pending_count(), 0);
    assert_eq!(running(&session), ["a"]);
}

#[test]
fn a_pending_pod_that_is_deleted_is_not_tried_again() {
    story(vec![
        (Event::Connected, vec![]),
        (add("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
        (snapshot(), vec![ack()]),
        (del("a"), vec![ack()]),
        (Event::Tick, vec![]),
    ]);
}

#[test]
fn a_pod_deleted_while_it_is_retried_stops_when_it_comes_up() {
    let session = story(vec![
        (Event::Connected, vec![]),
        (add("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
        (snapshot(), vec![ack()]),
        (Event::Tick, vec![start("a", 1)]),
        (del("a"), vec![ack()]),
        (up("a"), vec![stop("a")]),
        (Event::Tick, vec![]),
    ]);
    assert!(session.pending_count() == 0 && running(&session).is_empty());
}

#[test]
fn an_add_during_a_retry_waits_for_it() {
    story(vec![
        (Event::Connected, vec![]),
        (add("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
        (Event::Tick, vec![start("a", 1)]),
        (add("a", 1), vec![]),
        (up("a"), vec![ack()]),
    ]);
}

#[test]
fn an_add_of_another_namespace_during_a_retry_replaces_it() {
    for (outcome, stopped) in [(up("a"), vec![stop("a")]), (failed("a"), vec![])] {
        let then: Vec<A> = stopped.into_iter().chain([start("a", 2)]).collect();
        story(vec![
            (Event::Connected, vec![]),
            (add("a", 1), vec![start("a", 1)]),
            (failed("a"), vec![nack()]),
            (Event::Tick, vec![start("a", 1)]),
            (add("a", 2), vec![]),
            (outcome, then),
            (up("a"), vec![ack()]),
        ]);
    }
}

#[test]
fn del_stops_a_pod_and_succeeds_for_an_unknown_one() {
    let mut session = live();
    assert_eq!(session.on(del("a")), [stop("a"), ack()]);
    assert_eq!(session.on(del("a")), [ack()]);
    assert_eq!(running(&session), ["b"]);
}

#[test]
fn running_pods_outlive_the_connection_and_unseen_ones_fall_with_the_snapshot() {
    let mut session = live();
    assert_eq!(session.on(Event::Disconnected), []);
    assert_eq!(running(&session), ["a", "b"]);
    assert!(session.waiting().is_some(), "not ready meanwhile");
    assert_eq!(session.on(Event::Connected), []);
    assert_eq!(session.on(keep("a")), [ack()]);
    assert_eq!(running(&session), ["a", "b"], "nothing falls before the snapshot is complete");
    assert_eq!(session.on(snapshot()), [stop("b"), ack()]);
    assert_eq!(running(&session), ["a"]);
}

#[test]
fn del_within_a_snapshot_takes_back_what_was_seen() {
    let mut session = live();
    session.on(Event::Disconnected);
    session.on(Event::Connected);
    session.on(keep("a"));
    session.on(keep("b"));
    assert_eq!(session.on(del("b")), [ack()], "it falls when the snapshot is complete");
    assert_eq!(session.on(snapshot()), [stop("b"), ack()]);
}

#[test]
fn a_pod_that_nobody_serves_cannot_be_kept() {
    let mut session = S::new();
    session.on(Event::Connected);
    let actions = session.on(keep("x"));
    assert!(matches!(&actions[..], [Action::Ack(Err(text))] if text.contains('x')), "{actions:?}");
}

#[test]
fn an_answer_never_goes_to_a_later_connection() {
    let mut session = S::new();
    session.on(Event::Connected);
    session.on(add("a", 1));
    session.on(Event::Disconnected);
    assert!(!session.owes_ack());
    session.on(Event::Connected);
    assert_eq!(session.on(up("a")), [], "nobody on this connection asked");
    assert_eq!(session.on(add("a", 1)), [ack()]);
    assert_eq!(session.on(snapshot()), [ack()]);
    assert_eq!(running(&session), ["a"]);
}

#[test]
fn a_start_left_over_from_a_former_connection_stops_when_unseen() {
    let mut session = S::new();
    session.on(Event::Connected);
    session.on(add("a", 1));
    session.on(Event::Disconnected);
    session.on(Event::Connected);
    assert_eq!(session.on(snapshot()), [ack()]);
    assert_eq!(session.on(up("a")), [stop("a")]);
    assert!(running(&session).is_empty());
}

#[test]
fn violations_are_answered_and_end_the_connection() {
    for event in [keep("a"), snapshot(), Event::Malformed("truncated".to_owned())] {
        let mut session = live();
        let told = format!("{event:?}");
        let actions = session.on(event);
        assert!(
            matches!(&actions[..], [Action::Ack(Err(_)), Action::Close]),
            "{told}: {actions:?}"
        );
        assert_eq!(running(&session), ["a", "b"], "{told}: pods stay");
        assert!(session.waiting().is_some(), "{told}: not ready until the next snapshot");
    }
}

#[test]
fn an_unusable_descriptor_is_refused_and_hurts_only_its_pod() {
    let mut session = live();
    session.on(Event::Disconnected);
    session.on(Event::Connected);
    session.on(keep("b"));
    let bad = Request::BadAdd("a".to_owned(), "port taken".to_owned());
    assert_eq!(session.on(Event::Request(bad)), [nack()]);
    assert_eq!(session.on(snapshot()), [ack()], "the pod that runs already is not stopped");
    assert_eq!(running(&session), ["a", "b"]);
}

fn listener(inode: u64) -> GivenListener {
    let socket = std::sync::Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    GivenListener { at: zds::ListenAt::any(zds::port::OUTBOUND), socket, inode }
}

fn given(uid: &str, ino: u64, inode: u64) -> Pod<()> {
    Pod { listeners: Listeners::Given(vec![listener(inode)]), ..pod(uid, ino) }
}

fn add_given(uid: &str, ino: u64, inode: u64) -> Event<()> {
    Event::Request(Request::Add(given(uid, ino, inode), GiveBack::NotAsked))
}

/// An agent that was restarted: it knows where the pod is, and has no listeners of it.
fn add_asking(uid: &str, ino: u64) -> Event<()> {
    Event::Request(Request::Add(pod(uid, ino), GiveBack::Proxy))
}

fn keep_asking(uid: &str) -> Event<()> {
    Event::Request(Request::Keep(uid.to_owned(), GiveBack::Proxy))
}

fn give_back(uid: &str) -> A {
    Action::GiveBack(uid.to_owned(), GiveBack::Proxy)
}

fn adopt(uid: &str, ino: u64, inode: u64) -> A {
    Action::Adopt(given(uid, ino, inode), GiveBack::NotAsked)
}

fn with_lookups(uid: &str, ino: u64, name_server: NameServer) -> Pod<()> {
    Pod { name_server, ..pod(uid, ino) }
}

fn add_with_lookups(uid: &str, ino: u64, name_server: NameServer) -> Event<()> {
    Event::Request(Request::Add(with_lookups(uid, ino, name_server), GiveBack::All))
}

#[test]
fn a_name_server_comes_and_goes_while_its_pod_runs() {
    let mut session = live();
    for name_server in [
        NameServer::On(Vec::new()),
        NameServer::On(vec![listener(7)]),
        NameServer::None,
        NameServer::On(vec![listener(8)]),
    ] {
        let adopt = Action::Adopt(with_lookups("a", 1, name_server.clone()), GiveBack::All);
        assert_eq!(session.on(add_with_lookups("a", 1, name_server)), [adopt]);
        assert!(!session.owes_ack(), "the answer goes with it");
    }
    assert_eq!(running(&session), ["a", "b"]);
}

#[test]
fn a_name_server_that_is_wanted_during_a_start_is_there_after_it() {
    let started = |name_server: &NameServer| {
        let mut session = S::new();
        session.on(Event::Connected);
        session.on(add_with_lookups("a", 1, name_server.clone()));
        session
    };
    // The same, or whichever there is, and then something else.
    let on = |inode: u64| NameServer::On(vec![listener(inode)]);
    let given_back = || Action::GiveBack("a".to_owned(), GiveBack::All);
    for (first, then) in [
        (on(7), on(7)),
        (on(7), NameServer::On(Vec::new())),
        (on(7), NameServer::AsConfigured),
        (NameServer::None, NameServer::None),
    ] {
        let mut session = started(&first);
        assert_eq!(session.on(add_with_lookups("a", 1, then)), []);
        assert_eq!(session.on(up("a")), [given_back()]);
    }
    for (first, then) in
        [(on(7), on(8)), (on(7), NameServer::None), (NameServer::None, NameServer::On(Vec::new()))]
    {
        let mut session = started(&first);
        assert_eq!(session.on(add_with_lookups("a", 1, then.clone())), []);
        let next = Action::Start(with_lookups("a", 1, then));
        assert_eq!(session.on(up("a")), [stop("a"), next]);
    }
}

#[test]
fn a_pod_is_started_on_the_listeners_that_come_with_it() {
    story(vec![
        (Event::Connected, vec![]),
        (add_given("a", 1, 7), vec![Action::Start(given("a", 1, 7))]),
        (up("a"), vec![ack()]),
        (snapshot(), vec![ack()]),
        (del("a"), vec![stop("a"), ack()]),
    ]);
}

#[test]
fn an_agent_that_was_restarted_gets_the_listeners_back() {
    let mut session = live();
    session.on(Event::Disconnected);
    session.on(Event::Connected);
    assert_eq!(session.on(keep_asking("a")), [give_back("a")]);
    assert_eq!(session.on(add_asking("b", 2)), [give_back("b")]);
    assert_eq!(session.on(snapshot()), [ack()]);
    assert_eq!(running(&session), ["a", "b"]);
}

#[test]
fn a_pod_that_is_bound_here_for_who_asks_is_given_back_when_it_runs() {
    story(vec![
        (Event::Connected, vec![]),
        (add_asking("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
        (Event::Tick, vec![start("a", 1)]),
        (add_asking("a", 1), vec![]),
        (up("a"), vec![give_back("a")]),
        (snapshot(), vec![ack()]),
        // Who does not ask is not sent descriptors that it could not read.
        (add("a", 1), vec![ack()]),
    ]);
}

#[test]
fn a_refusal_gives_nothing_back() {
    story(vec![
        (Event::Connected, vec![]),
        (add_asking("a", 1), vec![start("a", 1)]),
        (failed("a"), vec![nack()]),
    ]);
    let mut session = S::new();
    session.on(Event::Connected);
    let actions = session.on(keep_asking("x"));
    assert!(matches!(&actions[..], [Action::Ack(Err(_))]), "{actions:?}");
}

#[test]
fn a_running_pod_that_is_given_listeners_serves_on_them_too() {
    let mut session = live();
    assert_eq!(session.on(add_given("a", 1, 7)), [adopt("a", 1, 7)]);
    assert!(!session.owes_ack(), "the answer goes with it");
    assert_eq!(session.on(add_given("a", 9, 7)), [stop("a"), Action::Start(given("a", 9, 7))]);
}

#[test]
fn listeners_that_come_during_a_retry_replace_what_is_tried() {
    for (outcome, stopped) in [(up("a"), vec![stop("a")]), (failed("a"), vec![])] {
        let then: Vec<A> = stopped.into_iter().chain([Action::Start(given("a", 1, 7))]).collect();
        story(vec![
            (Event::Connected, vec![]),
            (add("a", 1), vec![start("a", 1)]),
            (failed("a"), vec![nack()]),
            (Event::Tick, vec![start("a", 1)]),
            (add_given("a", 1, 7), vec![]),
            (outcome, then),
            (up("a"), vec![ack()]),
        ]);
    }
}

#[test]
fn the_same_listeners_during_a_start_change_nothing() {
    story(vec![
        (Event::Connected, vec![]),
        (add_given("a", 1, 7), vec![Action::Start(given("a", 1, 7))]),
        (Event::Disconnected, vec![]),
        (Event::Connected, vec![]),
        (add_given("a", 1, 7), vec![]),
        (up("a"), vec![ack()]),
    ]);
}

#[test]
fn a_keep_during_a_start_is_answered_when_it_has_ended() {
    for (outcome, answer) in [(up("a"), give_back("a")), (failed("a"), nack())] {
        let mut session = S::new();
        session.on(Event::Connected);
        session.on(add("a", 1));
        session.on(Event::Disconnected);
        session.on(Event::Connected);
        assert_eq!(session.on(keep_asking("a")), []);
        assert!(session.owes_ack());
        assert_eq!(session.on(outcome), [answer]);
        assert_eq!(session.on(snapshot()), [ack()]);
    }
}

/// Recorded packets, as the wire carries them.
mod wire {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| descriptor()).collect()
    }

    /// What the manager makes of a packet, without looking into namespaces.
    fn event(bytes: &[u8], fds: usize) -> Event<()> {
        match zds::decode_request(bytes, descriptors(fds)) {
            Ok(zds::Request::Add { workload, give_back, .. }) => {
                let pod = Pod { info: workload.info, ..pod(&workload.uid, 1) };
                Event::Request(Request::Add(pod, give_back))
            }
            Ok(zds::Request::Keep(uid, give_back)) => Event::Request(Request::Keep(uid, give_back)),
            Ok(zds::Request::Del(uid)) => Event::Request(Request::Del(uid)),
            Ok(zds::Request::SnapshotSent) => Event::Request(Request::SnapshotSent),
            Err(violation) => Event::Malformed(violation.to_string()),
        }
    }

    /// add{uid "a", info{"pod-a", "shop", "default"}}
    const ADD: &[u8] = b"\x0a\x1b\x0a\x01a\x12\x16\x0a\x05pod-a\x12\x04shop\x1a\x07default";
    const KEEP: &[u8] = b"\x2a\x03\x0a\x01a";
    const DEL: &[u8] = b"\x12\x03\x12\x01a";
    const SNAPSHOT: &[u8] = b"\x1a\x00";
    const ADD_WITHOUT_INFO: &[u8] = b"\x0a\x03\x0a\x01a";

    #[test]
    fn a_recorded_session_is_understood() {
        story(vec![
            (Event::Connected, vec![]),
            (event(ADD, 1), vec![start("a", 1)]),
            (up("a"), vec![ack()]),
            (event(KEEP, 0), vec![ack()]),
            (event(SNAPSHOT, 0), vec![ack()]),
            (event(DEL, 0), vec![stop("a"), ack()]),
        ]);
    }

    #[test]
    fn broken_packets_end_the_connection_and_no_pod() {
        let cases: [(&str, &[u8], usize); 9] = [
            ("add without descriptor", ADD, 0),
            ("add with two descriptors", ADD, 2),
            ("del with a descriptor", DEL, 1),
            ("snapshot with a descriptor", SNAPSHOT, 1),
            ("keep with a descriptor", KEEP, 1),
            ("truncated add", &ADD[..ADD.len() - 3], 1),
            ("add without workload_info", ADD_WITHOUT_INFO, 1),
            ("no payload", b"", 0),
            ("unknown payload", b"\x32\x00", 0),
        ];
        for (name, bytes, fds) in cases {
            let mut session = live();
            let actions = session.on(event(bytes, fds));
            assert!(
                matches!(&actions[..], [Action::Ack(Err(_)), Action::Close]),
                "{name}: {actions:?}"
            );
            assert_eq!(running(&session), ["a", "b"], "{name}");
        }
    }
}
