//! The plugin's system calls: which there are, and that DEL and another ADD stumble over
//! nothing after a death at any of them. Needs `strace`.

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
    let trace = pod.trace("ADD");
    let calls: Vec<_> = trace.iter().map(|line| line.split_once('(').unwrap().0).collect();
    assert_eq!(visit(), Visit::Answered(Verb::Add));
    assert!(calls.len() > 60, "{calls:?}");
    // What the agent saw of each: nothing of those who die before they connect.
    let mut visits = Vec::new();
    // The first is the start itself.
    for (step, call) in calls.iter().enumerate().skip(1) {
        let occurrence = calls[..=step].iter().filter(|earlier| **earlier == *call).count();
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

/// It needs no other program, enters no namespace, and leaves nothing anywhere.
#[test]
fn an_add_asks_one_socket_and_changes_nothing_else() {
    let pod = Pod::new();
    let seen = standing(&pod.socket());
    let trace = pod.trace("ADD");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Visit::Answered(Verb::Add));
    let lines = |name: &str| -> Vec<_> {
        trace.iter().filter(|line| line.starts_with(&format!("{name}("))).collect()
    };
    for (name, count) in [("execve", 1), ("socket", 1), ("connect", 1), ("sendmsg", 1)] {
        assert_eq!(lines(name).len(), count, "{:?}", lines(name));
    }
    let socket = pod.socket().display().to_string();
    assert!(lines("connect")[0].contains(&socket), "{:?}", lines("connect"));
    for name in [
        "clone",
        "clone3",
        "fork",
        "vfork",
        "setns",
        "unshare",
        "mount",
        "bind",
        "rename",
        "renameat",
        "renameat2",
        "unlink",
        "unlinkat",
        "mkdir",
        "mkdirat",
        "symlink",
        "link",
        "chmod",
        "fchmod",
        "creat",
    ] {
        assert!(lines(name).is_empty(), "{:?}", lines(name));
    }
    let opened: Vec<_> = [lines("open"), lines("openat")].concat();
    let for_writing =
        |line: &str| ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|f| line.contains(f));
    assert!(!opened.is_empty() && !opened.iter().any(|line| for_writing(line)), "{opened:?}");
}
