//! GC: hands the agent what the runtime still knows, and reports what is left.

use plugin_api::{AttachmentKey, Call, Code, GcRequest, Outcome};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::runtime::{PATIENCE, Pod};

const VALID: &str = "cni.dev/valid-attachments";

fn node(valid: Value) -> Pod {
    ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]
        .into_iter()
        .fold(Pod::new(), |pod, variable| pod.with(variable, ""))
        .with_key("cniVersion", json!("1.1.0"))
        .with_key("prevResult", Value::Null)
        .with_key("timeoutSeconds", json!(1))
        .with_key(VALID, valid)
}

fn collected() -> Outcome {
    Outcome::Collected { attachments: 2 }
}

fn key(container_id: &str, ifname: &str) -> AttachmentKey {
    AttachmentKey { container_id: container_id.to_owned(), ifname: ifname.to_owned() }
}

#[test]
fn the_agent_is_told_the_network_and_all_that_is_valid() {
    let listed = json!([
        {"containerID": "c0ffee", "ifname": "eth0"},
        {"containerID": "tea", "ifname": "net1", "future": 7},
    ]);
    let node = node(listed);
    let agent = Agent::answering(&node.socket(), collected());
    let outcome = node.call("GC");
    outcome.assert_silent_success();
    assert!(outcome.stderr.contains("GC: 2 of network lab let go"), "{}", outcome.stderr);
    let asked = agent.asked();
    let valid = vec![key("c0ffee", "eth0"), key("tea", "net1")];
    assert_eq!(asked.call, Call::Gc(GcRequest::new("lab".to_owned(), valid)));
    assert!(asked.netns.is_none());
}

/// Runtimes that are written in Go send `null` for no attachments.
#[test]
fn no_attachments_are_a_list_too() {
    for valid in ["[]", "null"] {
        let node = node(Value::Null);
        let agent = Agent::answering(&node.socket(), collected());
        let config = format!(
            r#"{{"cniVersion":"1.1.0","name":"lab","type":"sluice-cni","agentSocket":{:?},
                "{VALID}":{valid}}}"#,
            node.socket(),
        );
        node.call_with("GC", config.as_bytes()).assert_silent_success();
        assert_eq!(agent.asked().call, Call::Gc(GcRequest::new("lab".to_owned(), vec![])));
    }
}

#[test]
fn the_lists_other_name_is_understood() {
    let listed = json!([{"containerID": "c0ffee", "ifname": "eth0"}]);
    let node = node(Value::Null).with_key("cni.dev/attachments", listed);
    let agent = Agent::answering(&node.socket(), collected());
    node.call("GC").assert_silent_success();
    let valid = vec![key("c0ffee", "eth0")];
    assert_eq!(agent.asked().call, Call::Gc(GcRequest::new("lab".to_owned(), valid)));
}

/// What is not in the list is ended, so a list that cannot be read ends nothing.
#[test]
fn a_list_that_is_missing_or_broken_is_not_an_empty_one() {
    for valid in [
        Value::Null,
        json!({}),
        json!("c0ffee"),
        json!([{"containerID": "c0ffee"}]),
        json!([{"ifname": "eth0"}]),
        json!([{"containerID": 7, "ifname": "eth0"}]),
    ] {
        let node = node(valid);
        let agent = Agent::answering(&node.socket(), collected());
        node.call("GC").assert_error(7, &[VALID]);
        agent.assert_not_asked();
    }
}

#[test]
fn a_full_node_fits_into_one_request() {
    let attachment = |index: u32| json!({"containerID": format!("{index:064x}"), "ifname": "eth0"});
    let node = node((0..5000).map(attachment).collect());
    let agent = Agent::answering(&node.socket(), collected());
    node.call("GC").assert_silent_success();
    let Call::Gc(request) = agent.asked().call else { panic!("not a GC") };
    assert_eq!(request.valid.len(), 5000);
}

#[test]
fn what_is_left_is_reported() {
    let node = node(json!([]));
    let agent = Agent::refusing(&node.socket(), Code::TryAgain);
    node.call("GC").assert_error(11, &["rules: because"]);
    agent.asked();
}

/// The runtime comes back for it; a success would say that there is nothing to come for.
#[test]
fn without_an_agent_nothing_is_collected_and_none_is_claimed() {
    let absent = node(json!([]));
    let outcome = absent.call("GC");
    outcome.assert_error(11, &["node agent is away"]);
    assert!(outcome.took < PATIENCE, "{:?}", outcome.took);
    absent.assert_nothing_left(&[]);

    let node = node(json!([]));
    let agent = Agent::sending(&node.socket(), b"");
    node.call("GC").assert_error(11, &["did not answer within 900ms"]);
    agent.asked();
}
