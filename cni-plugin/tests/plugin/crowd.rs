//! Many calls at once, and calls that end in the middle.

use plugin_api::{Outcome, Verb};
use serde_json::json;

use crate::agent::Agent;
use crate::runtime::Pod;

#[test]
fn two_hundred_pods_start_at_once() {
    const PODS: usize = 200;
    let first = Pod::new().with_key("timeoutSeconds", json!(60));
    let agent = Agent::answering_together(&first.socket(), PODS, Outcome::Captured);
    // They differ in nothing that the plugin shares: it has neither file nor lock.
    let started: Vec<_> = (0..PODS).map(|_| first.start("ADD")).collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    agent.join().unwrap();
    first.assert_nothing_left(&["plugin.sock"]);
}

/// The agent takes back what it did when the plugin hangs up, however that ended.
#[test]
fn an_add_that_is_killed_hangs_up_and_leaves_nothing() {
    let pod = Pod::new().with_key("timeoutSeconds", json!(60));
    let (agent, heard) = Agent::hanging(&pod.socket());
    let mut add = pod.start("ADD");
    heard.recv().unwrap();
    add.kill().unwrap();
    assert!(!add.wait().unwrap().success());
    assert_eq!(agent.asked().request().verb, Verb::Add);
    pod.assert_nothing_left(&["plugin.sock"]);

    for (verb, outcome) in [("DEL", Outcome::Done), ("ADD", Outcome::Captured)] {
        std::fs::remove_file(pod.socket()).unwrap();
        let agent = Agent::answering(&pod.socket(), outcome);
        assert!(pod.call(verb).success, "{verb} after an ADD that was killed");
        agent.asked();
    }
}

#[test]
fn an_add_for_the_same_attachment_asks_again() {
    let pod = Pod::new();
    let answers = [0, 1].map(|_| {
        let _ = std::fs::remove_file(pod.socket());
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        let outcome = pod.call("ADD");
        assert!(outcome.success, "{}", outcome.stdout);
        (outcome.stdout, agent.asked().request().clone())
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_caller_that_hears_no_answer_is_no_panic() {
    let pod = Pod::new();
    let (agent, heard) = Agent::hanging(&pod.socket());
    let mut add = pod.start("ADD");
    drop((add.stdout.take(), add.stderr.take()));
    heard.recv().unwrap();
    agent.asked();
    // Neither a signal nor the code of a panic.
    assert_eq!(add.wait().unwrap().code(), Some(1));
}
