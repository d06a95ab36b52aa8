//! DEL: gets through whatever is gone already.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use plugin_api::{Code, Outcome, Verb};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::runtime::Pod;

#[test]
fn the_agent_is_told_without_a_descriptor() {
    let pod = Pod::new();
    let agent = Agent::answering(&pod.socket(), Outcome::Done);
    pod.call("DEL").assert_silent_success();
    let asked = agent.asked();
    assert!(asked.netns.is_none());
    assert_eq!(asked.request().verb, Verb::Del);
    assert_eq!(asked.request().container_id, "c0ffee");
    assert_eq!(asked.request().ifname, "eth0");
}

#[test]
fn an_absent_agent_does_not_matter_however_often() {
    let pod = Pod::new();
    for _ in 0..3 {
        let outcome = pod.call("DEL");
        outcome.assert_silent_success();
        assert!(outcome.took < Duration::from_secs(3), "{:?}", outcome.took);
    }
    pod.assert_nothing_left(&[]);
}

#[test]
fn a_hanging_agent_is_waited_for_less_than_a_second() {
    let pod = Pod::new().with_key("timeoutSeconds", json!(60));
    let _listener = UnixListener::bind(pod.socket()).unwrap();
    let outcome = pod.call("DEL");
    outcome.assert_silent_success();
    assert!(outcome.took < Duration::from_secs(3), "{:?}", outcome.took);
    assert!(outcome.stderr.contains("did not answer within 800ms"), "{}", outcome.stderr);
}

#[test]
fn a_failing_agent_does_not_matter() {
    let pod = Pod::new();
    let agent = Agent::refusing(&pod.socket(), Code::TryAgain);
    let outcome = pod.call("DEL");
    outcome.assert_silent_success();
    assert!(outcome.stderr.contains("rules: because"), "{}", outcome.stderr);
    agent.asked();
}

/// The second DEL of containerd: no namespace, no prevResult.
#[test]
fn neither_namespace_nor_prev_result_is_needed() {
    for netns in ["", "/nowhere/netns", "/proc/self/ns/net"] {
        let pod = Pod::new().with("CNI_NETNS", netns).with_key("prevResult", Value::Null);
        let agent = Agent::answering(&pod.socket(), Outcome::Done);
        pod.call("DEL").assert_silent_success();
        let hint = Some(netns).filter(|path| !path.is_empty());
        assert_eq!(agent.asked().request().netns_path.as_deref(), hint);
    }
}

#[test]
fn what_the_agent_does_not_know_is_done() {
    let pod = Pod::new().with("CNI_CONTAINERID", "never-seen");
    let agent = Agent::answering(&pod.socket(), Outcome::Done);
    pod.call("DEL").assert_silent_success();
    assert_eq!(agent.asked().request().container_id, "never-seen");
}

#[test]
fn what_failed_the_add_does_not_fail_the_del() {
    Pod::new().with("CNI_ARGS", "K8S_POD_NAME").call("DEL").assert_silent_success();
    Pod::new().with_key("prevResult", json!("?")).call("DEL").assert_silent_success();
    let pod = Pod::new().with_key("timeoutSeconds", json!("soon"));
    pod.call("DEL").assert_silent_success();
}
