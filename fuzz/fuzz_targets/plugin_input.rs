#![no_main]
//! What a container runtime gives the CNI plugin: variables and standard input.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use cni_plugin::config::{CniVersion, is_identifier, version_for_errors};
use cni_plugin::invocation::{Attachment, Environment, Invocation};
use cni_plugin::prev_result::PrevResult;
use cni_plugin::reply::{Answer, Failure};
use libfuzzer_sys::fuzz_target;

const VARIABLES: [&str; 5] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

/// Nothing leads out of where it belongs.
fn assert_tame(attachment: &Attachment) {
    let Attachment { container_id, ifname, network, pod } = attachment;
    assert!(is_identifier(container_id) && is_identifier(network));
    assert!(!ifname.contains('/') && ifname.len() <= 15);
    if let Some(pod) = pod {
        let uid = pod.uid.as_deref().unwrap_or_default();
        for name in [&pod.namespace, &pod.name, uid] {
            assert!(!name.contains(['/', ';', '=', '\n']), "{name:?}");
        }
    }
}

/// What is handed on is one JSON object, and a later plugin reads from it what we did.
fn assert_sound(result: PrevResult) {
    let ips = result.ips.clone();
    let text = Answer::Result(result.raw).render();
    let again: Box<serde_json::value::RawValue> = serde_json::from_str(&text).expect("JSON");
    for version in CniVersion::ALL {
        let read = PrevResult::read(again.clone(), version).expect("what we wrote");
        assert_eq!(read.ips, ips);
    }
}

// One part for each variable, divided by zeros, which they cannot hold; then standard input.
fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(VARIABLES.len() + 1, |byte| *byte == 0);
    let mut environment = Environment::new();
    for (name, value) in VARIABLES.into_iter().zip(&mut parts) {
        environment.insert(name.to_owned(), OsString::from_vec(value.to_owned()));
    }
    let stdin = parts.next().unwrap_or_default();
    let version = version_for_errors(stdin);
    match Invocation::parse(&environment, Ok(stdin.to_owned())) {
        Ok(Invocation::Add(it) | Invocation::Check(it)) => {
            assert_tame(&it.attachment);
            assert_sound(it.prev_result);
        }
        Ok(Invocation::Del(it)) => assert_tame(&it.attachment),
        Ok(Invocation::Gc(it)) => assert!(is_identifier(&it.network)),
        Ok(Invocation::Version { .. } | Invocation::Status(_)) => {}
        Err(error) => {
            let said = Failure::from(error).render(version);
            let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            assert!(said["code"].as_u64().is_some_and(|code| (1..=7).contains(&code)), "{said}");
        }
    }
});
