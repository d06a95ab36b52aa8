//! Messages as recorded bytes: what goes over the wire must stay what it is.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

use std::fs::File;
use std::os::fd::OwnedFd;

use zds::{
    Ack, AddWorkload, DelWorkload, Hello, KeepWorkload, MAX_MESSAGE, Request, SnapshotSent,
    Version, Violation, WorkloadInfo, WorkloadRequest, WorkloadResponse, decode_hello,
    decode_request, decode_response, encode, workload_request, workload_response,
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
    encode(&WorkloadRequest { payload: Some(payload) }).unwrap()
}

fn info() -> WorkloadInfo {
    WorkloadInfo { name: "n".into(), namespace: "s".into(), service_account: "a".into() }
}

fn violation(bytes: &[u8], descriptors: usize) -> Violation {
    decode_request(bytes, fds(descriptors)).unwrap_err()
}

#[test]
fn what_is_sent() {
    use workload_request::Payload;
    let uid = || "u1".to_owned();
    assert_eq!(encode(&Hello { version: Version::V1.into() }).unwrap(), HELLO);
    let add = AddWorkload { uid: uid(), workload_info: Some(info()) };
    assert_eq!(request(Payload::Add(add)), ADD);
    assert_eq!(request(Payload::Del(DelWorkload { uid: uid() })), DEL);
    assert_eq!(request(Payload::SnapshotSent(SnapshotSent {})), SNAPSHOT_SENT);
    assert_eq!(request(Payload::Keep(KeepWorkload { uid: uid() })), KEEP);
    let ack = |error: &str| WorkloadResponse {
        payload: Some(workload_response::Payload::Ack(Ack { error: error.into() })),
    };
    assert_eq!(encode(&ack("")).unwrap(), ACK);
    assert_eq!(encode(&ack("no")).unwrap(), REFUSAL);
}

#[test]
fn what_is_understood() {
    assert_eq!(decode_hello(HELLO, &[]).unwrap().version, 1);
    let Request::Add(workload, _netns) = decode_request(ADD, fds(1)).unwrap() else {
        panic!("not an add")
    };
    assert_eq!((workload.uid.as_str(), workload.info), ("u1", info()));
    assert!(matches!(decode_request(DEL, fds(0)).unwrap(), Request::Del(uid) if uid == "u1"));
    assert!(matches!(decode_request(KEEP, fds(0)).unwrap(), Request::Keep(uid) if uid == "u1"));
    assert!(matches!(decode_request(SNAPSHOT_SENT, fds(0)).unwrap(), Request::SnapshotSent));
    assert_eq!(decode_response(ACK, &[]).unwrap(), Ok(()));
    assert_eq!(decode_response(REFUSAL, &[]).unwrap(), Err("no".to_owned()));
}

/// A peer of a later version may say more, in fields from 1000 on.
#[test]
fn unknown_fields_are_ignored() {
    assert_eq!(decode_hello(b"\x08\x01\xc0\x3e\x01", &[]).unwrap().version, 1);
    let listeners = b"\x0a\x14\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a\xc2\x3e\x02\x08\x50";
    let request = decode_request(listeners, fds(1)).unwrap();
    assert!(matches!(request, Request::Add(workload, _) if workload.info == info()));
    assert_eq!(decode_response(b"\x0a\x03\xc8\x3e\x01", &[]).unwrap(), Ok(()));
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
    let ack = decode_response(ACK, &fds(1)).unwrap_err();
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
    for bytes in [&b""[..], b"\x22\x00", b"\xc2\x3e\x00"] {
        assert!(matches!(violation(bytes, 0), Violation::NoPayload("workload request")));
        let response = decode_response(bytes, &[]).unwrap_err();
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
    let response = decode_response(b"\x0a\x05", &[]).unwrap_err();
    assert!(matches!(response, Violation::Decode { what: "workload response", .. }));
}

#[test]
fn what_the_peer_could_not_read_is_not_encoded() {
    let ack = |length: usize| WorkloadResponse {
        payload: Some(workload_response::Payload::Ack(Ack { error: "x".repeat(length) })),
    };
    // Two headers of three bytes each.
    assert_eq!(encode(&ack(MAX_MESSAGE - 6)).unwrap().len(), MAX_MESSAGE);
    let error = encode(&ack(MAX_MESSAGE - 5)).unwrap_err();
    assert!(matches!(error, Violation::TooLong(length) if length == MAX_MESSAGE + 1));
}
