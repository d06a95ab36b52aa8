//! The plugin killed at each of its system calls: nothing is left that DEL and another ADD
//! would stumble over. Needs `strace`.

use plugin_api::Verb;
use serde_json::json;

use crate::agent::{Visit, standing};
use crate::runtime::{PATIENCE, Pod};

#[test]
fn an_add_killed_at_any_system_call_is_no_obstacle_to_del_and_add() {
    let pod = Pod::new();
    let log = pod.folder.path().join("plugin.log");
    let pod = pod.with_key("logFile", json!(log)).with_key("timeoutSeconds", json!(60));
    let seen = standing(&pod.socket());
    let visit = || seen.recv_timeout(PATIENCE).unwrap();
    let calls = pod.system_calls("ADD");
    assert_eq!(visit(), Visit::Answered(Verb::Add));
    assert!(calls.len() > 60, "{calls:?}");
    // What the agent saw of each: nothing of those who die before they connect.
    let mut visits = Vec::new();
    // The first is the start itself.
    for (step, call) in calls.iter().enumerate().skip(1) {
        let occurrence = calls[..=step].iter().filter(|earlier| *earlier == call).count();
        pod.kill_at("ADD", call, occurrence);
        pod.call("DEL").assert_silent_success();
        let again = pod.call("ADD");
        assert!(again.success, "after a death at {call} {occurrence}: {}", again.stdout);
        assert!(again.stdout.contains("10.0.0.7/24"), "{}", again.stdout);
        let before_del = |visit: &Visit| *visit != Visit::Answered(Verb::Del);
        visits.extend(std::iter::repeat_with(visit).take_while(before_del));
        assert_eq!(visit(), Visit::Answered(Verb::Add));
    }
    // It died before, in, and after its conversation.
    assert!(visits.contains(&Visit::Cut), "{visits:?}");
    assert!(visits.contains(&Visit::Answered(Verb::Add)), "{visits:?}");
    assert!(visits.len() + 20 < calls.len(), "{} of {}", visits.len(), calls.len());
    pod.assert_nothing_left(&["plugin.log", "plugin.sock"]);
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.lines().all(|line| line.ends_with(" ms)")), "half a line: {log}");
}
