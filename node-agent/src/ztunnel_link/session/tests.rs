use zds::{Lookups, WorkloadInfo};

use super::*;

const HELLO: &[u8] = b"\x08\x01";
const ACK: &[u8] = b"\x0a\x00";
/// `ack { error: "no" }`.
const NACK: &[u8] = b"\x0a\x04\x0a\x02no";
const SNAPSHOT_SENT: &[u8] = b"\x1a\x00";
/// `keep { uid: "a" }` and `del { uid: "a" }`.
const KEEP_A: &[u8] = b"\x2a\x03\x0a\x01a";
const DEL_A: &[u8] = b"\x12\x03\x12\x01a";

fn uid(name: &str) -> PodUid {
    PodUid(name.into())
}

fn keep(name: &str) -> Command {
    Command::keep(&uid(name), GiveBack::NotAsked).unwrap()
}

fn packet(bytes: &[u8]) -> Event {
    Event::Packet(bytes.to_vec(), Vec::new())
}

/// One line per action, so that a whole exchange is compared at a glance.
fn line(action: &Action) -> String {
    match action {
        Action::TakeSnapshot(Takes::Netns) => "snapshot?".into(),
        Action::TakeSnapshot(Takes::Listeners) => "snapshot with listeners?".into(),
        Action::TakeSnapshot(Takes::Lookups) => "snapshot with lookups?".into(),
        Action::Send(command) => format!("send {:02x?}", command.bytes),
        Action::Answered(ticket, subject, result) => {
            let given = |returned: &Returned| format!("{} listeners", returned.listeners.len());
            let result = result.as_ref().map(|r| if r.is_empty() { "()".into() } else { given(r) });
            format!("answered {:?} {subject:?} {result:?}", ticket.map(|t| t.0))
        }
        Action::End(reason) => format!("end: {reason}"),
    }
}

fn play(session: Session, events: Vec<Event>) -> (Session, Vec<String>) {
    let mut lines = Vec::new();
    let mut session = session;
    for event in events {
        let actions;
        (session, actions) = session.on(event);
        lines.extend(actions.iter().map(line));
    }
    (session, lines)
}

fn live() -> Session {
    let events = vec![packet(HELLO), Event::Snapshot(vec![]), packet(ACK)];
    let (session, _) = play(Session::default(), events);
    assert!(session.is_live() && !session.awaits());
    session
}

fn send(bytes: &[u8]) -> String {
    format!("send {bytes:02x?}")
}

#[test]
fn a_session_starts_with_the_snapshot_one_request_at_a_time() {
    let start = vec![packet(HELLO), Event::Snapshot(vec![keep("a")])];
    let (session, lines) = play(Session::default(), start);
    assert_eq!(lines, ["snapshot?".to_owned(), send(KEEP_A)]);
    assert!(session.awaits() && !session.is_live());

    let (session, lines) = play(session, vec![packet(ACK), packet(ACK)]);
    let kept = "answered None Serve(PodUid(\"a\")) Ok(\"()\")".to_owned();
    assert_eq!(lines, [kept, send(SNAPSHOT_SENT), "answered None Snapshot Ok(\"()\")".into()]);
    assert!(session.is_live());
}

#[test]
fn an_add_carries_its_namespace_and_its_owner() {
    let netns = PodNetns::current().unwrap();
    let info =
        WorkloadInfo { name: "n".into(), namespace: "s".into(), service_account: "a".into() };
    let workload = Workload { info, lookups: Lookups::Unspecified };
    let (uid, none) = (uid("u"), GiveBack::NotAsked);
    let add = Command::add(&uid, workload, netns.clone(), Vec::new(), none).unwrap();
    assert_eq!(add.bytes, b"\x0a\x0e\x0a\x01u\x12\x09\x0a\x01n\x12\x01s\x1a\x01a");
    assert_eq!(add.netns.unwrap().id(), netns.id());
}

#[test]
fn orders_wait_for_the_answer_before_them() {
    let (first, second) = (Command::del(&uid("a")).unwrap(), Command::del(&uid("b")).unwrap());
    let orders = vec![Event::Order(Ticket(1), first), Event::Order(Ticket(2), second)];
    let (session, lines) = play(live(), orders);
    assert_eq!(lines, [send(DEL_A)]);

    let (_, lines) = play(session, vec![packet(ACK), packet(NACK)]);
    assert_eq!(lines[0], "answered Some(1) Drop(PodUid(\"a\")) Ok(\"()\")");
    assert_eq!(lines[2], "answered Some(2) Drop(PodUid(\"b\")) Err(\"no\")");
}

#[test]
fn orders_before_the_snapshot_come_after_it() {
    let order = Event::Order(Ticket(7), Command::del(&uid("a")).unwrap());
    let events = vec![order, packet(HELLO), Event::Snapshot(vec![]), packet(ACK)];
    let (_, lines) = play(Session::default(), events);
    let acked = "answered None Snapshot Ok(\"()\")".to_owned();
    assert_eq!(lines, ["snapshot?".into(), send(SNAPSHOT_SENT), acked, send(DEL_A)]);
}

#[test]
fn a_refused_pod_does_not_end_the_snapshot() {
    let start = vec![packet(HELLO), Event::Snapshot(vec![keep("a")]), packet(NACK), packet(ACK)];
    let (session, lines) = play(Session::default(), start);
    assert_eq!(lines[2], "answered None Serve(PodUid(\"a\")) Err(\"no\")");
    assert!(session.is_live());
}

#[test]
fn whoever_breaks_the_protocol_is_cut_off() {
    let surplus = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let cases: [(&str, Session, Event); 7] = [
        ("a packet nobody asked for", live(), packet(ACK)),
        ("no hello", Session::default(), packet(ACK)),
        ("truncated hello", Session::default(), packet(b"\x08")),
        ("version 2", Session::default(), packet(b"\x08\x02")),
        ("hello with a descriptor", Session::default(), {
            Event::Packet(HELLO.to_vec(), vec![surplus()])
        }),
        ("answer without ack", waiting(), packet(b"\x12\x00")),
        ("answer with a descriptor", waiting(), Event::Packet(ACK.to_vec(), vec![surplus()])),
    ];
    for (name, session, event) in cases {
        let (_, lines) = play(session, vec![event]);
        assert!(matches!(&lines[..], [end] if end.starts_with("end: ")), "{name}: {lines:?}");
    }
}

#[test]
fn a_doubled_answer_is_unsolicited() {
    let (_, lines) = play(waiting(), vec![packet(ACK), packet(ACK)]);
    assert_eq!(lines[1], "end: ztunnel sent 2 bytes that nobody asked for");
}

fn waiting() -> Session {
    let order = Event::Order(Ticket(1), Command::del(&uid("a")).unwrap());
    play(live(), vec![order]).0
}

/// `ack { listeners: [15001], has_netns }`.
const ACK_LISTENERS: &[u8] = b"\x0a\x09\xc2\x3e\x03\x08\x99\x75\xc8\x3e\x01";

fn given(count: usize) -> Event {
    let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    Event::Packet(ACK_LISTENERS.to_vec(), (0..count).map(|_| fd()).collect())
}

#[test]
fn a_ztunnel_that_takes_listeners_says_so() {
    let (_, lines) = play(Session::default(), vec![packet(b"\x08\x01\xc0\x3e\x01")]);
    assert_eq!(lines, ["snapshot with listeners?"]);
    let (_, lines) = play(Session::default(), vec![packet(b"\x08\x01\xc0\x3e\x03")]);
    assert_eq!(lines, ["snapshot with lookups?"]);
    assert!(Takes::Netns < Takes::Listeners && Takes::Listeners < Takes::Lookups);
}

#[test]
fn listeners_come_back_to_who_asks() {
    let keep = Command::keep(&uid("a"), GiveBack::Proxy).unwrap();
    assert_eq!(keep.bytes, [KEEP_A, b"\xc0\x3e\x01"].concat());
    let (session, _) = play(live(), vec![Event::Order(Ticket(1), keep)]);
    let (_, lines) = play(session, vec![given(2)]);
    assert_eq!(lines, ["answered Some(1) Serve(PodUid(\"a\")) Ok(\"1 listeners\")"]);
}

#[test]
fn an_add_asks_for_what_is_lacking() {
    let add = |lookups, lacking| {
        let info = WorkloadInfo { name: "n".into(), ..WorkloadInfo::default() };
        let (workload, netns) = (Workload { info, lookups }, PodNetns::current().unwrap());
        Command::add(&uid("u"), workload, netns, vec![], lacking).unwrap()
    };
    let plain = add(Lookups::Unspecified, GiveBack::NotAsked);
    for (asks, features) in [(GiveBack::Proxy, 1), (GiveBack::Lookups, 2), (GiveBack::All, 3)] {
        let asking = add(Lookups::Unspecified, asks);
        assert_eq!(asking.asks, asks);
        assert_eq!(asking.bytes, [&plain.bytes[..], &[0xc0, 0x3e, features]].concat());
    }
    // All but the lengths of what is around it.
    let direct = add(Lookups::Direct, GiveBack::NotAsked);
    assert_eq!(direct.bytes[2..], [&plain.bytes[2..], b"\xc8\x3e\x01"].concat());
}

#[test]
fn sockets_of_a_name_server_that_nobody_asked_for_end_the_session() {
    let keep = Command::keep(&uid("a"), GiveBack::Proxy).unwrap();
    let (session, _) = play(live(), vec![Event::Order(Ticket(1), keep)]);
    let listeners = vec![zds::ListenAt::LOOKUPS[0].entry()];
    let ack = zds::Ack { listeners, ..zds::Ack::default() };
    let payload = Some(zds::workload_response::Payload::Ack(ack));
    let bytes = zds::encode(&zds::WorkloadResponse { payload }).unwrap();
    let socket = std::fs::File::open("/dev/null").unwrap().into();
    let (_, lines) = play(session, vec![Event::Packet(bytes, vec![socket])]);
    assert_eq!(lines, ["end: ztunnel gave 1 listeners back that nobody asked for"]);
}

#[test]
fn listeners_that_nobody_asked_for_end_the_session() {
    let (_, lines) = play(waiting(), vec![given(2)]);
    assert_eq!(lines, ["end: ztunnel gave 1 listeners back that nobody asked for"]);
    for count in [0, 1, 3] {
        let keep = Command::keep(&uid("a"), GiveBack::Proxy).unwrap();
        let (session, _) = play(live(), vec![Event::Order(Ticket(1), keep)]);
        let (_, lines) = play(session, vec![given(count)]);
        assert!(lines[0].starts_with("end: ack carried"), "{lines:?}");
    }
}
