//! Messages as recorded bytes: what goes over the wire must stay what it is.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

use std::fs::File;
use std::os::fd::OwnedFd;

use zds::{
    Ack, AddWorkload, DelWorkload, FEATURE_LISTENERS, FEATURE_LOOKUPS, GiveBack, Hello,
    KeepWorkload, ListenAt, ListenerKind, Lookups, MAX_LISTENERS, MAX_MESSAGE, Request, Returned,
    SnapshotSent, Version, Violation, WorkloadInfo, WorkloadRequest, WorkloadResponse,
    decode_hello, decode_request, decode_response, encode, workload_request, workload_response,
};

const HELLO: &[u8] = b"\x08\x01";
const ADD: &[u8] = b"\x0a\x0f\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a";
const DEL: &[u8] = b"\x12\x04\x12\x02u1";
const SNAPSHOT_SENT: &[u8] = b"\x1a\x00";
const KEEP: &[u8] = b"\x2a\x04\x0a\x02u1";
const ACK: &[u8] = b"\x0a\x00";
const REFUSAL: &[u8] = b"\x0a\x04\x0a\x02no";

fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect()
}

fn request(payload: workload_request::Payload) -> Vec<u8> {
    encode(&WorkloadRequest { features: 0, payload: Some(payload) }).unwrap()
}

fn info() -> WorkloadInfo {
    WorkloadInfo { name: "n".into(), namespace: "s".into(), service_account: "a".into() }
}

fn refusal(error: &str) -> Ack {
    Ack { error: error.into(), ..Ack::default() }
}

fn answer(bytes: &[u8], descriptors: usize) -> Result<Returned, String> {
    decode_response(bytes, fds(descriptors)).unwrap()
}

fn violation(bytes: &[u8], descriptors: usize) -> Violation {
    decode_request(bytes, fds(descriptors)).unwrap_err()
}

#[test]
fn what_is_sent() {
    use workload_request::Payload;
    let uid = || "u1".to_owned();
    assert_eq!(encode(&Hello { version: Version::V1.into(), features: 0 }).unwrap(), HELLO);
    let add = AddWorkload { uid: uid(), workload_info: Some(info()), ..AddWorkload::default() };
    assert_eq!(request(Payload::Add(add)), ADD);
    assert_eq!(request(Payload::Del(DelWorkload { uid: uid() })), DEL);
    assert_eq!(request(Payload::SnapshotSent(SnapshotSent {})), SNAPSHOT_SENT);
    assert_eq!(request(Payload::Keep(KeepWorkload { uid: uid() })), KEEP);
    let ack = |error: &str| WorkloadResponse {
        payload: Some(workload_response::Payload::Ack(refusal(error))),
    };
    assert_eq!(encode(&ack("")).unwrap(), ACK);
    assert_eq!(encode(&ack("no")).unwrap(), REFUSAL);
}

#[test]
fn what_is_understood() {
    assert_eq!(decode_hello(HELLO, &[]).unwrap().version, 1);
    let Request::Add { workload, listeners, give_back, .. } = decode_request(ADD, fds(1)).unwrap()
    else {
        panic!("not an add")
    };
    assert!(listeners.is_empty() && give_back == GiveBack::NotAsked, "as in version 1");
    assert_eq!((workload.uid.as_str(), workload.info), ("u1", info()));
    assert!(matches!(decode_request(DEL, fds(0)).unwrap(), Request::Del(uid) if uid == "u1"));
    assert!(matches!(decode_request(KEEP, fds(0)).unwrap(), Request::Keep(uid, GiveBack::NotAsked)
        if uid == "u1"));
    assert!(matches!(decode_request(SNAPSHOT_SENT, fds(0)).unwrap(), Request::SnapshotSent));
    assert!(answer(ACK, 0).unwrap().is_empty());
    assert_eq!(answer(REFUSAL, 0).unwrap_err(), "no");
}

/// A peer of a later version may say more, in fields that nobody here knows.
#[test]
fn unknown_fields_are_ignored() {
    // Field 1002, a number in the hello and in the ack, a message in the add.
    let hello = decode_hello(b"\x08\x01\xd0\x3e\x01", &[]).unwrap();
    assert_eq!((hello.version, hello.takes_listeners()), (1, false));
    let more = b"\x0a\x14\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a\xd2\x3e\x02\x08\x50";
    let request = decode_request(more, fds(1)).unwrap();
    assert!(matches!(request, Request::Add { workload, .. } if workload.info == info()));
    assert!(answer(b"\x0a\x03\xd0\x3e\x01", 0).unwrap().is_empty());
    // Features that have not been thought of yet beside the one that we know.
    assert!(decode_hello(b"\x08\x01\xc0\x3e\x07", &[]).unwrap().takes_listeners());
}

#[test]
fn only_version_1_is_spoken() {
    // An absent version is version 0, which protobuf does not send.
    for (bytes, announced) in [(&b""[..], 0), (b"\x08\x00", 0), (b"\x08\x02", 2)] {
        let error = decode_hello(bytes, &[]).unwrap_err();
        assert!(matches!(error, Violation::Version(found) if found == announced), "{error}");
    }
}

#[test]
fn every_message_has_its_number_of_descriptors() {
    for (bytes, expected_kind, expected, wrong) in [
        (ADD, "add", 1, [0, 2]),
        (DEL, "del", 0, [1, 2]),
        (KEEP, "keep", 0, [1, 2]),
        (SNAPSHOT_SENT, "snapshot_sent", 0, [1, 2]),
    ] {
        for count in wrong {
            let error = violation(bytes, count);
            let text = error.to_string();
            let Violation::DescriptorCount { kind, found, expected: wanted } = error else {
                panic!("{text}")
            };
            assert_eq!((kind, found, wanted), (expected_kind, count, expected));
        }
    }
    let hello = decode_hello(HELLO, &fds(1)).unwrap_err();
    assert!(matches!(hello, Violation::DescriptorCount { kind: "hello", found: 1, expected: 0 }));
    let ack = decode_response(ACK, fds(1)).unwrap_err();
    assert!(matches!(ack, Violation::DescriptorCount { kind: "ack", found: 1, expected: 0 }));
}

#[test]
fn incomplete_requests_are_refused() {
    let no_info = violation(b"\x0a\x04\x0a\x02u1", 1);
    assert!(matches!(no_info, Violation::NoInfo(uid) if uid == "u1"));
    assert!(matches!(violation(b"\x0a\x02\x12\x00", 1), Violation::NoUid("add")));
    assert!(matches!(violation(b"\x12\x00", 0), Violation::NoUid("del")));
    assert!(matches!(violation(b"\x2a\x00", 0), Violation::NoUid("keep")));
    // The uid of a del is field 2; as field 1 it is none.
    assert!(matches!(violation(b"\x12\x04\x0a\x02u1", 0), Violation::NoUid("del")));
}

#[test]
fn messages_without_a_known_payload_are_refused() {
    for bytes in [&b""[..], b"\x22\x00", b"\xd2\x3e\x00"] {
        assert!(matches!(violation(bytes, 0), Violation::NoPayload("workload request")));
        let response = decode_response(bytes, vec![]).unwrap_err();
        assert!(matches!(response, Violation::NoPayload("workload response")));
    }
}

#[test]
fn garbage_is_refused() {
    let cut_off = &ADD[..ADD.len() - 1];
    let no_utf8 = b"\x12\x04\x12\x02\xff\xfe";
    for bytes in [cut_off, no_utf8, b"\xff", b"\x08\x01", b"GET / HTTP/1.1\r\n"] {
        let error = violation(bytes, 0);
        assert!(matches!(error, Violation::Decode { what: "workload request", .. }), "{error}");
    }
    assert!(matches!(decode_hello(b"\x0a", &[]), Err(Violation::Decode { what: "hello", .. })));
    let response = decode_response(b"\x0a\x05", vec![]).unwrap_err();
    assert!(matches!(response, Violation::Decode { what: "workload response", .. }));
}

#[test]
fn what_the_peer_could_not_read_is_not_encoded() {
    let ack = |length: usize| WorkloadResponse {
        payload: Some(workload_response::Payload::Ack(refusal(&"x".repeat(length)))),
    };
    // Two headers of three bytes each.
    assert_eq!(encode(&ack(MAX_MESSAGE - 6)).unwrap().len(), MAX_MESSAGE);
    let error = encode(&ack(MAX_MESSAGE - 5)).unwrap_err();
    assert!(matches!(error, Violation::TooLong(length) if length == MAX_MESSAGE + 1));
}

/// Hello, add and ack as they look with listeners; what a version 1 peer skips.
const HELLO_LISTENERS: &[u8] = b"\x08\x01\xc0\x3e\x01";
const ADD_LISTENERS: &[u8] = b"\x0a\x1d\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a\
    \xc2\x3e\x03\x08\x99\x75\xc2\x3e\x05\x08\xcd\x75\x10\x03";
const KEEP_ASKING: &[u8] = b"\x2a\x04\x0a\x02u1\xc0\x3e\x01";
const ACK_LISTENERS: &[u8] = b"\x0a\x09\xc2\x3e\x03\x08\x99\x75\xc8\x3e\x01";

fn dns() -> ListenAt {
    ListenAt { port: 15053, kind: ListenerKind::UdpLoopbackV4 }
}

fn add_with(listeners: &[ListenAt]) -> Vec<u8> {
    let listeners = listeners.iter().map(|at| at.entry()).collect();
    request(workload_request::Payload::Add(AddWorkload {
        uid: "u1".into(),
        workload_info: Some(info()),
        listeners,
        ..AddWorkload::default()
    }))
}

fn ack_with(ack: Ack) -> Vec<u8> {
    encode(&WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) }).unwrap()
}

#[test]
fn listeners_are_handed_over_in_the_order_of_their_names() {
    let hello = Hello { version: Version::V1.into(), features: FEATURE_LISTENERS };
    assert_eq!(encode(&hello).unwrap(), HELLO_LISTENERS);
    assert!(decode_hello(HELLO_LISTENERS, &[]).unwrap().takes_listeners());

    assert_eq!(add_with(&[ListenAt::any(15001), dns()]), ADD_LISTENERS);
    let (netns, first, second) = (fds(1), fds(1), fds(1));
    let numbers = [&netns, &first, &second].map(|fds| std::os::fd::AsRawFd::as_raw_fd(&fds[0]));
    let sent = [netns, first, second].into_iter().flatten().collect();
    let Request::Add { netns, listeners, give_back, .. } =
        decode_request(ADD_LISTENERS, sent).unwrap()
    else {
        panic!("not an add")
    };
    let places: Vec<_> = listeners.iter().map(|given| given.at).collect();
    assert_eq!(places, [ListenAt::any(15001), dns()]);
    let found = [&netns, &listeners[0].fd, &listeners[1].fd].map(std::os::fd::AsRawFd::as_raw_fd);
    assert_eq!(found, numbers, "the namespace first, then one each");
    assert_eq!(give_back, GiveBack::NotAsked);
}

#[test]
fn listeners_are_given_back_to_who_asks() {
    let asking = WorkloadRequest {
        features: FEATURE_LISTENERS,
        payload: Some(workload_request::Payload::Keep(KeepWorkload { uid: "u1".into() })),
    };
    assert_eq!(encode(&asking).unwrap(), KEEP_ASKING);
    let keep = decode_request(KEEP_ASKING, fds(0)).unwrap();
    assert!(matches!(keep, Request::Keep(uid, GiveBack::Proxy) if uid == "u1"));

    let listeners = vec![ListenAt::any(15001).entry()];
    let ack = Ack { listeners, has_netns: true, ..Ack::default() };
    assert_eq!(ack_with(ack), ACK_LISTENERS);
    let returned = answer(ACK_LISTENERS, 2).unwrap();
    assert!(returned.netns.is_some());
    assert_eq!(returned.listeners[0].at, ListenAt::any(15001));
}

/// Who brings listeners does not ask for them.
#[test]
fn an_add_asks_for_what_it_does_not_bring() {
    let proxy = add_with(&[ListenAt::any(15001)]);
    let lookups = add_with(&[dns()]);
    for (add, descriptors, features, expected) in [
        (ADD, 1, 0, GiveBack::NotAsked),
        (ADD, 1, 1, GiveBack::Proxy),
        (ADD, 1, 2, GiveBack::Lookups),
        (ADD, 1, 3, GiveBack::All),
        (&proxy[..], 2, 1, GiveBack::NotAsked),
        (&proxy[..], 2, 3, GiveBack::Lookups),
        (&lookups[..], 2, 3, GiveBack::Proxy),
        (ADD_LISTENERS, 3, 3, GiveBack::NotAsked),
        // A feature of a later version.
        (ADD, 1, 4, GiveBack::NotAsked),
    ] {
        let asking = [add, &[0xc0, 0x3e, features]].concat();
        let decoded = decode_request(&asking, fds(descriptors)).unwrap();
        let Request::Add { give_back, .. } = decoded else { panic!("not an add") };
        assert_eq!(give_back, expected, "features {features}, {descriptors} descriptors");
        let is_whole = descriptors == 1 && features != 4;
        assert!(!is_whole || give_back.features() == u32::from(features), "and back");
    }
    assert!(GiveBack::Proxy.takes(ListenAt::any(15001)) && !GiveBack::Proxy.takes(dns()));
    assert!(GiveBack::Lookups.takes(dns()) && !GiveBack::Lookups.takes(ListenAt::any(15001)));
}

/// Hello and add as they look with name servers.
const HELLO_LOOKUPS: &[u8] = b"\x08\x01\xc0\x3e\x03";
const ADD_REDIRECTED: &[u8] = b"\x0a\x12\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a\xc8\x3e\x02";

#[test]
fn what_becomes_of_lookups_is_told_to_who_understands_it() {
    let features = FEATURE_LISTENERS | FEATURE_LOOKUPS;
    let hello = Hello { version: Version::V1.into(), features };
    assert_eq!(encode(&hello).unwrap(), HELLO_LOOKUPS);
    for (hello, listeners, lookups) in [
        (HELLO, false, false),
        (HELLO_LISTENERS, true, false),
        (HELLO_LOOKUPS, true, true),
        // It means nothing alone.
        (b"\x08\x01\xc0\x3e\x02", false, false),
    ] {
        let hello = decode_hello(hello, &[]).unwrap();
        assert_eq!((hello.takes_listeners(), hello.takes_lookups()), (listeners, lookups));
    }

    let (uid, workload_info) = ("u1".to_owned(), Some(info()));
    let lookups = Lookups::Redirected.into();
    let add = AddWorkload { uid, workload_info, lookups, listeners: Vec::new() };
    assert_eq!(request(workload_request::Payload::Add(add)), ADD_REDIRECTED);
    let mut of_a_later_version = ADD_REDIRECTED.to_vec();
    *of_a_later_version.last_mut().unwrap() = 9;
    for (bytes, expected) in [
        (ADD, Lookups::Unspecified),
        (ADD_REDIRECTED, Lookups::Redirected),
        (&of_a_later_version, Lookups::Unspecified),
    ] {
        let request = decode_request(bytes, fds(1)).unwrap();
        assert!(matches!(request, Request::Add { lookups, .. } if lookups == expected));
    }
}

#[test]
fn a_pods_whole_set_of_listeners_fits_a_packet() {
    let proxy = [15001, 15006, 15008].map(ListenAt::any);
    let all: Vec<_> = proxy.into_iter().chain(ListenAt::LOOKUPS).collect();
    let info = WorkloadInfo {
        name: "n".repeat(253),
        namespace: "s".repeat(63),
        service_account: "a".repeat(253),
    };
    let add = AddWorkload {
        uid: "u".repeat(36),
        workload_info: Some(info),
        listeners: all.iter().map(|at| at.entry()).collect(),
        lookups: Lookups::Redirected.into(),
    };
    let bytes = request(workload_request::Payload::Add(add));
    let Request::Add { listeners, .. } = decode_request(&bytes, fds(8)).unwrap() else {
        panic!("not an add")
    };
    let places: Vec<_> = listeners.iter().map(|given| given.at).collect();
    assert_eq!(places, all);
}

#[test]
fn a_place_is_an_address_a_port_and_a_protocol() {
    use zds::Carries::{Connections, Datagrams};
    let [udp4, tcp4, udp6, tcp6] = ListenAt::LOOKUPS;
    for (at, addresses, carries) in [
        (ListenAt::any(15001), &["0.0.0.0:15001", "[::]:15001"][..], Connections),
        (udp4, &["127.0.0.1:15053"], Datagrams),
        (tcp4, &["127.0.0.1:15053"], Connections),
        (udp6, &["[::1]:15053"], Datagrams),
        (tcp6, &["[::1]:15053"], Connections),
    ] {
        assert_eq!(at.carries(), carries);
        for address in ["0.0.0.0:15001", "[::]:15001", "127.0.0.1:15053", "[::1]:15053"]
            .into_iter()
            .chain(["127.0.0.2:15053", "127.0.0.1:53", "0.0.0.0:15053", "[::1]:15001"])
        {
            let is_at = at.is_at(address.parse().unwrap());
            assert_eq!(is_at, addresses.contains(&address), "{at}: {address}");
        }
    }
}

#[test]
fn every_listener_has_its_descriptor() {
    for (count, expected) in [(0, 3), (1, 3), (2, 3), (4, 3)] {
        let error = violation(ADD_LISTENERS, count);
        assert!(
            matches!(error, Violation::DescriptorCount { kind: "add", found, expected: wanted }
                if (found, wanted) == (count, expected)),
            "{error}"
        );
    }
    for count in [0, 1, 3] {
        let error = decode_response(ACK_LISTENERS, fds(count)).unwrap_err();
        assert!(matches!(error, Violation::DescriptorCount { kind: "ack", expected: 2, .. }));
    }
    let namespace_alone = ack_with(Ack { has_netns: true, ..Ack::default() });
    assert!(answer(&namespace_alone, 1).unwrap().netns.is_some());
    let error = decode_response(&namespace_alone, vec![]).unwrap_err();
    assert!(matches!(error, Violation::DescriptorCount { kind: "ack", expected: 1, .. }));
}

#[test]
fn a_refusal_gives_nothing_back() {
    let error = decode_response(REFUSAL, fds(1)).unwrap_err();
    assert!(matches!(error, Violation::DescriptorCount { kind: "ack with an error", .. }));
    let listeners = vec![dns().entry()];
    for ack in [Ack { listeners, ..refusal("no") }, Ack { has_netns: true, ..refusal("no") }] {
        let error = decode_response(&ack_with(ack), vec![]).unwrap_err();
        assert!(matches!(error, Violation::RefusalWithListeners), "{error}");
    }
}

#[test]
fn a_listener_that_is_none_is_refused() {
    use zds::ListenerEntry;
    for entry in [
        ListenerEntry { port: 0, kind: 0 },
        ListenerEntry { port: 65_536 + 15_001, kind: 0 },
        ListenerEntry { port: 15_001, kind: 5 },
        ListenerEntry { port: 15_001, kind: -1 },
    ] {
        let ack = ack_with(Ack { listeners: vec![entry], ..Ack::default() });
        let error = decode_response(&ack, fds(1)).unwrap_err();
        assert!(matches!(error, Violation::UnknownListener { kind: "ack", .. }), "{error}");
        let (uid, workload_info) = ("u1".into(), Some(info()));
        let listeners = vec![entry];
        let add = AddWorkload { uid, workload_info, listeners, ..AddWorkload::default() };
        let error = violation(&request(workload_request::Payload::Add(add)), 2);
        assert!(matches!(error, Violation::UnknownListener { kind: "add", .. }), "{error}");
    }
    let error = violation(&add_with(&[dns(), dns()]), 3);
    assert_eq!(error.to_string(), "add names the listener udp 127.0.0.1:15053 twice");
    let many: Vec<_> = (1..=17).map(ListenAt::any).collect();
    let error = violation(&add_with(&many), 18);
    assert!(matches!(error, Violation::TooManyListeners { found: 17, .. }), "{error}");
    assert!(decode_request(&add_with(&many[..MAX_LISTENERS]), fds(1 + MAX_LISTENERS)).is_ok());
}
