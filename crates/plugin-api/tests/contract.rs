//! What plugin and agent say to each other, as recorded text: either may be older.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

use plugin_api::{
    AttachmentKey, Call, Code, FrameError, GcRequest, MAX_FRAME, Outcome, Reply, Request,
    StatusRequest, VERSION, Verb, decode, decode_call, decode_length, decode_reply, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const ADD: &str = r#"{"version":1,"verb":"ADD","namespace":"shop","name":"web-0","uid":"u1","containerId":"c1","ifname":"eth0","network":"lab","netnsPath":"/run/netns/x","ips":["10.1.2.3","fd00::3"]}"#;
const STATUS: &str = r#"{"version":1,"verb":"STATUS"}"#;
const GC: &str =
    r#"{"version":1,"verb":"GC","network":"lab","valid":[{"containerId":"c1","ifname":"eth0"}]}"#;
const DEL: &str = r#"{"version":1,"verb":"DEL","namespace":"shop","name":"web-0","containerId":"c1","ifname":"eth0","ips":[]}"#;

fn add() -> Request {
    Request {
        version: VERSION,
        verb: Verb::Add,
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: Some("u1".into()),
        container_id: "c1".into(),
        ifname: "eth0".into(),
        network: Some("lab".into()),
        netns_path: Some("/run/netns/x".into()),
        ips: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
    }
}

fn del() -> Request {
    Request {
        verb: Verb::Del,
        uid: None,
        network: None,
        netns_path: None,
        ips: Vec::new(),
        ..add()
    }
}

fn gc() -> GcRequest {
    let key = AttachmentKey { container_id: "c1".into(), ifname: "eth0".into() };
    GcRequest::new("lab".into(), vec![key])
}

fn replies() -> Vec<(Outcome, &'static str)> {
    let error = Outcome::Error {
        code: Code::TryAgain,
        message: "ztunnel is not connected".into(),
        details: "pod shop/web-0".into(),
    };
    vec![
        (Outcome::Captured, r#"{"version":1,"outcome":"captured"}"#),
        (
            Outcome::NotInMesh { reason: "no label".into() },
            r#"{"version":1,"outcome":"notInMesh","reason":"no label"}"#,
        ),
        (Outcome::Done, r#"{"version":1,"outcome":"done"}"#),
        (Outcome::Ready { note: String::new() }, r#"{"version":1,"outcome":"ready"}"#),
        (
            Outcome::Ready { note: "no ztunnel".into() },
            r#"{"version":1,"outcome":"ready","note":"no ztunnel"}"#,
        ),
        (
            Outcome::Collected { attachments: 3 },
            r#"{"version":1,"outcome":"collected","attachments":3}"#,
        ),
        (
            error,
            r#"{"version":1,"outcome":"error","code":"tryAgain","message":"ztunnel is not connected","details":"pod shop/web-0"}"#,
        ),
    ]
}

/// Encodes to exactly `json` with its length before it, and back.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T, json: &str) {
    let frame = encode(message).unwrap();
    let (prefix, body) = frame.split_at(4);
    assert_eq!(decode_length(prefix.try_into().unwrap()).unwrap(), body.len());
    assert_eq!(std::str::from_utf8(body).unwrap(), json);
    assert_eq!(&decode::<T>(body).unwrap(), message);
}

fn malformed<T: DeserializeOwned + Debug>(json: &str) -> String {
    match decode::<T>(json.as_bytes()).unwrap_err() {
        error @ FrameError::Malformed(_) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn requests() {
    check(&add(), ADD);
    check(&del(), DEL);
    check(&Request { verb: Verb::Check, ..del() }, &DEL.replace("DEL", "CHECK"));
    check(&StatusRequest::new(), STATUS);
    check(&gc(), GC);
}

#[test]
fn a_request_is_read_by_its_verb() {
    assert_eq!(decode_call(ADD.as_bytes()).unwrap(), Call::Pod(add()));
    assert_eq!(decode_call(DEL.as_bytes()).unwrap(), Call::Pod(del()));
    assert_eq!(decode_call(STATUS.as_bytes()).unwrap(), Call::Status);
    assert_eq!(decode_call(GC.as_bytes()).unwrap(), Call::Gc(gc()));
    let nameless = decode_call(STATUS.replace("STATUS", "GC").as_bytes()).unwrap_err();
    assert!(nameless.to_string().contains("network"), "{nameless}");
    let unknown = decode_call(STATUS.replace("STATUS", "MOVE").as_bytes()).unwrap_err();
    assert!(unknown.to_string().contains("`MOVE`"), "{unknown}");
}

#[test]
fn another_version_is_named_whatever_it_says() {
    for body in [r#"{"version":2,"verb":"MOVE"}"#, r#"{"version":2,"shape":{"of":"the future"}}"#] {
        for error in
            [decode_call(body.as_bytes()).unwrap_err(), decode_reply(body.as_bytes()).unwrap_err()]
        {
            assert!(matches!(error, FrameError::OtherVersion(2)), "{error}");
        }
    }
}

#[test]
fn all_replies() {
    for (outcome, json) in replies() {
        check(&Reply { version: VERSION, outcome }, json);
    }
}

#[test]
fn codes() {
    for (code, json, cni) in [
        (Code::IncompatibleVersion, r#""incompatibleVersion""#, 101),
        (Code::InvalidRequest, r#""invalidRequest""#, 4),
        (Code::InvalidNetns, r#""invalidNetns""#, 8),
        (Code::NotCaptured, r#""notCaptured""#, 102),
        (Code::TryAgain, r#""tryAgain""#, 11),
        (Code::NotReady, r#""notReady""#, 50),
        (Code::NotReadyImpaired, r#""notReadyImpaired""#, 51),
    ] {
        check(&code, json);
        assert_eq!(code.cni(), cni);
    }
}

#[test]
fn unknown_fields_are_tolerated() {
    let more = |json: &str| json.replacen('{', r#"{"later":{"x":[1]},"#, 1);
    assert_eq!(decode::<Request>(more(ADD).as_bytes()).unwrap(), add());
    for (outcome, json) in replies() {
        let reply = Reply { version: VERSION, outcome };
        assert_eq!(decode::<Reply>(more(json).as_bytes()).unwrap(), reply);
    }
}

#[test]
fn what_a_sender_may_leave_out() {
    let bare = DEL.replace(r#","ips":[]"#, "");
    assert_eq!(decode::<Request>(bare.as_bytes()).unwrap(), del());
    let brief = r#"{"version":1,"outcome":"error","code":"invalidNetns","message":"m"}"#;
    let reply: Reply = decode(brief.as_bytes()).unwrap();
    assert!(matches!(reply.outcome, Outcome::Error { details, .. } if details.is_empty()));
}

#[test]
fn what_a_sender_may_not_leave_out() {
    let without = |start: &str, end: &str| {
        let (from, to) = (DEL.find(start).unwrap(), DEL.find(end).unwrap());
        malformed::<Request>(&format!("{}{}", &DEL[..from], &DEL[to..]))
    };
    assert!(without(r#""version""#, r#""verb""#).contains("version"));
    assert!(without(r#""verb""#, r#""namespace""#).contains("verb"));
    assert!(without(r#""name""#, r#""containerId""#).contains("name"));
    assert!(without(r#""containerId""#, r#""ifname""#).contains("containerId"));
    assert!(malformed::<Reply>(r#"{"version":1}"#).contains("outcome"));
    assert!(malformed::<Reply>(r#"{"version":1,"outcome":"notInMesh"}"#).contains("reason"));
}

#[test]
fn unknown_words_are_named() {
    assert!(malformed::<Request>(&DEL.replace("DEL", "MOVE")).contains("`MOVE`"));
    // Verbs are written as CNI writes them, not otherwise.
    assert!(malformed::<Request>(&DEL.replace("DEL", "del")).contains("`del`"));
    assert!(malformed::<Reply>(r#"{"version":1,"outcome":"queued"}"#).contains("`queued`"));
    let code = r#"{"version":1,"outcome":"error","code":"later","message":"m"}"#;
    assert!(malformed::<Reply>(code).contains("`later`"));
}

#[test]
fn malformed_json() {
    for text in ["", "{", "[]", "null", "\"ADD\"", "{}", &ADD[..ADD.len() - 1], &format!("{ADD}x")]
    {
        malformed::<Request>(text);
        malformed::<Reply>(text);
    }
    malformed::<Request>(&ADD.replace("10.1.2.3", "10.1.2"));
    malformed::<Request>(&ADD.replacen('1', "-1", 1));
    assert!(decode::<Request>(b"\xff\xfe").is_err());
}

#[test]
fn frames_have_a_limit() {
    let fits = u32::try_from(MAX_FRAME).unwrap();
    assert_eq!(decode_length(fits.to_be_bytes()).unwrap(), MAX_FRAME);
    for length in [fits + 1, u32::MAX] {
        let error = decode_length(length.to_be_bytes()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(found) if found == length as usize));
    }
    // A text of n bytes is n + 2 bytes of JSON.
    assert_eq!(encode(&"x".repeat(MAX_FRAME - 2)).unwrap().len(), 4 + MAX_FRAME);
    let error = encode(&"x".repeat(MAX_FRAME - 1)).unwrap_err();
    assert_eq!(error.to_string(), "frame of 1048577 bytes exceeds 1048576");
}
