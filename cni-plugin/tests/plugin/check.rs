//! CHECK: says whether the pod is still as ADD left it.

use plugin_api::{Code, Outcome, Verb};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::runtime::Pod;

#[test]
fn a_pod_that_is_as_it_should_be_passes() {
    for outcome in [Outcome::Captured, Outcome::NotInMesh { reason: "no label".to_owned() }] {
        let pod = Pod::new();
        let agent = Agent::answering(&pod.socket(), outcome);
        pod.call("CHECK").assert_silent_success();
        let asked = agent.asked();
        assert_eq!(asked.request().verb, Verb::Check);
        assert_eq!(asked.request().ips.len(), 2);
        assert_eq!(asked.netns.unwrap().id(), pod.netns.id());
    }
}

#[test]
fn a_pod_that_is_not_fails_with_the_agents_words() {
    let pod = Pod::new();
    let agent = Agent::refusing(&pod.socket(), Code::NotCaptured);
    pod.call("CHECK").assert_error(102, &["rules: because"]);
    agent.asked();
}

#[test]
fn without_an_agent_nobody_can_tell() {
    Pod::new().call("CHECK").assert_error(11, &["node agent is away"]);
}

#[test]
fn configurations_before_its_time_are_refused() {
    let pod = Pod::new().with_key("cniVersion", json!("0.3.1"));
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    pod.call("CHECK").assert_error(1, &["0.3.1", "CHECK", "0.4.0"]);
    agent.assert_not_asked();
}

#[test]
fn it_needs_the_result_of_add() {
    let pod = Pod::new().with_key("prevResult", Value::Null);
    pod.call("CHECK").assert_error(7, &["prevResult"]);
}

#[test]
fn excluded_namespaces_and_strangers_pass() {
    for args in ["", "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns"] {
        Pod::new().with("CNI_ARGS", args).call("CHECK").assert_silent_success();
    }
}
