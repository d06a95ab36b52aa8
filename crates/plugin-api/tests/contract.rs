//! What plugin and agent say to each other, as recorded text: either may be older.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

use plugin_api::{
    Code, FrameError, MAX_FRAME, Outcome, Reply, Request, VERSION, Verb, decode, decode_length,
    encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const ADD: &str = r#"{"version":1,"verb":"ADD","namespace":"shop","name":"web-0","uid":"u1","containerId":"c1","ifname":"eth0","netnsPath":"/run/netns/x","ips":["10.1.2.3","fd00::3"]}"#;
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
        netns_path: Some("/run/netns/x".into()),
        ips: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
    }
}

fn del() -> Request {
    Request { verb: Verb::Del, uid: None, netns_path: None, ips: Vec::new(), ..add() }
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
    assert!(malformed::<Request>(&DEL.replace("DEL", "GC")).contains("`GC`"));
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
    assert_eq!(error.to_string(), "frame of 65537 bytes exceeds 65536");
}
