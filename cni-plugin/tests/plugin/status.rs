//! STATUS: says whether an ADD would be served, in codes 50 and 51 only.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use plugin_api::{Call, Code, Outcome};
use serde_json::json;

use crate::agent::Agent;
use crate::runtime::{PATIENCE, Pod};

const CONTAINER: [&str; 4] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

/// As runtimes ask: about no container, and in the version that has the verb.
fn node() -> Pod {
    let newest = Pod::new().with_key("cniVersion", json!("1.1.0"));
    let newest = newest.with_key("prevResult", json!(null)).with_key("timeoutSeconds", json!(1));
    CONTAINER.into_iter().fold(newest, |pod, variable| pod.with(variable, ""))
}

#[test]
fn an_agent_that_is_ready_is_silent_success() {
    let node = node();
    let agent = Agent::answering(&node.socket(), Outcome::Ready { note: String::new() });
    let outcome = node.call("STATUS");
    outcome.assert_silent_success();
    assert_eq!(outcome.stderr, "");
    let asked = agent.asked();
    assert_eq!((asked.call, asked.netns.is_none(), asked.rest), (Call::Status, true, vec![]));
}

#[test]
fn what_an_operator_should_know_is_logged() {
    let node = node();
    let note = "no ztunnel is connected".to_owned();
    let agent = Agent::answering(&node.socket(), Outcome::Ready { note });
    let outcome = node.call("STATUS");
    outcome.assert_silent_success();
    assert!(outcome.stderr.contains("no ztunnel is connected"), "{}", outcome.stderr);
    agent.asked();
}

#[test]
fn an_agent_that_is_not_ready_says_so_itself() {
    for (code, number) in [(Code::NotReady, 50), (Code::NotReadyImpaired, 51)] {
        let node = node();
        let agent = Agent::refusing(&node.socket(), code);
        let outcome = node.call("STATUS");
        outcome.assert_error(number, &["rules: because"]);
        assert_eq!(outcome.error()["details"], "do this");
        agent.asked();
    }
}

#[test]
fn any_other_answer_is_no_readiness() {
    let error = Outcome::Error {
        code: Code::InvalidRequest,
        message: "malformed frame: unknown variant `STATUS`".to_owned(),
        details: String::new(),
    };
    for (answer, word) in [(error, "unknown variant"), (Outcome::Done, "answered STATUS with Done")]
    {
        let node = node();
        let agent = Agent::answering(&node.socket(), answer);
        node.call("STATUS").assert_error(50, &[word]);
        agent.asked();
    }
    for (reply, word) in [
        (&b"\x00\x00\x00\x0d{\"version\":9}"[..], "speaks version 9"),
        (b"\xff\xff\xff\xff", "sent what is no reply"),
    ] {
        let node = node();
        let agent = Agent::sending(&node.socket(), reply);
        node.call("STATUS").assert_error(50, &[word]);
        agent.asked();
    }
}

#[test]
fn an_absent_agent_is_told_with_the_time_it_was_last_heard_of() {
    let node = node();
    let outcome = node.call("STATUS");
    outcome.assert_error(50, &["node agent is away", "last sign of it"]);
    assert!(outcome.error()["details"].as_str().unwrap().contains("sluice-node-agent"));
    assert!(outcome.took < PATIENCE, "{:?}", outcome.took);
    node.assert_nothing_left(&[]);
}

#[test]
fn a_hanging_agent_is_not_waited_for_longer_than_the_deadline() {
    let node = node();
    let agent = Agent::sending(&node.socket(), b"");
    let outcome = node.call("STATUS");
    outcome.assert_error(50, &["did not answer within"]);
    assert!(outcome.took < PATIENCE, "{:?}", outcome.took);
    agent.asked();
}

/// The kubelet would call the node not ready for it.
#[test]
fn an_agent_that_restarts_is_waited_for() {
    let node = node().with_key("timeoutSeconds", json!(60));
    // What a dead agent leaves: nobody listens at it any more.
    drop(UnixListener::bind(node.socket()).unwrap());
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| node.call("STATUS"));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!asks.is_finished(), "answered without an agent");
        std::fs::remove_file(node.socket()).unwrap();
        let agent = Agent::answering(&node.socket(), Outcome::Ready { note: String::new() });
        asks.join().unwrap().assert_silent_success();
        agent.asked();
    });
}
