//! ADD: captured, not in the mesh, passed through, or refused; never in between.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::socket::{Backlog, listen};
use plugin_api::{Code, Outcome, Reply, VERSION, Verb};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::runtime::{self, Pod, identity, path_of};

fn not_in_mesh() -> Outcome {
    Outcome::NotInMesh { reason: "no label".to_owned() }
}

#[test]
fn a_captured_pod_gets_the_result_of_the_plugins_before() {
    let pod = Pod::new();
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    let outcome = pod.call("ADD");
    assert!(outcome.success, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("default/web: captured"), "{}", outcome.stderr);
    assert_eq!(agent.asked().rest, b"");
}

#[test]
fn the_agent_is_told_everything_and_handed_the_namespace() {
    let pod = Pod::new();
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    assert!(pod.call("ADD").success);
    let asked = agent.asked();
    assert_eq!(asked.netns.as_ref().unwrap().id(), pod.netns.id());
    let request = asked.request();
    assert_eq!((request.version, request.verb), (VERSION, Verb::Add));
    assert_eq!((request.namespace.as_str(), request.name.as_str()), ("default", "web"));
    assert_eq!(request.uid.as_deref(), Some("0b1c-2d"));
    assert_eq!((request.container_id.as_str(), request.ifname.as_str()), ("c0ffee", "eth0"));
    assert_eq!(request.network.as_deref(), Some("lab"));
    assert_eq!(request.netns_path, Some(path_of(&pod.netns)));
    let ips: Vec<_> = request.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.7", "fd00::7"]);
}

#[test]
fn a_pod_outside_the_mesh_starts() {
    let pod = Pod::new();
    let agent = Agent::answering(&pod.socket(), not_in_mesh());
    let outcome = pod.call("ADD");
    assert!(outcome.success);
    assert!(outcome.stderr.contains("no label"), "{}", outcome.stderr);
    agent.asked();
}

#[test]
fn being_the_first_plugin_is_an_error() {
    for args in ["", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"] {
        let pod = Pod::new().with_key("prevResult", Value::Null).with("CNI_ARGS", args);
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        pod.call("ADD").assert_error(7, &["prevResult", "chained"]);
        agent.assert_not_asked();
    }
}

#[test]
fn the_list_in_which_pods_wait_for_a_primary_means_try_again() {
    let pod = Pod::new().with_key("prevResult", Value::Null).with_key("listOf", json!(""));
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    pod.call("ADD").assert_error(11, &["no primary CNI plugin", "waits"]);
    agent.assert_not_asked();
    let pod = Pod::new().with_key("prevResult", Value::Null).with_key("listOf", json!("10-a"));
    pod.call("ADD").assert_error(7, &["prevResult", "chained"]);
}

#[test]
fn strange_keys_are_tolerated() {
    let pod = Pod::new()
        .with_key("capabilities", json!({"portMappings": true}))
        .with_key("runtimeConfig", json!({"portMappings": [{"hostPort": 80}]}))
        .with_key("args", json!({"cni": [1, 2]}))
        .with_key("futureKey", json!(7));
    let agent = Agent::answering(&pod.socket(), not_in_mesh());
    assert!(pod.call("ADD").success);
    agent.asked();
}

#[test]
fn excluded_namespaces_start_without_an_agent() {
    let pod = Pod::new().with("CNI_ARGS", "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns");
    let outcome = pod.call("ADD");
    assert!(outcome.success, "{}", outcome.stdout);
    let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(printed["ips"][0]["address"], "10.0.0.7/24");
}

#[test]
fn excluded_namespaces_are_not_asked_about() {
    let pod = Pod::new().with("CNI_ARGS", "K8S_POD_NAMESPACE=sluice-system;K8S_POD_NAME=zt");
    let agent = Agent::refusing(&pod.socket(), Code::TryAgain);
    assert!(pod.call("ADD").success);
    agent.assert_not_asked();
}

#[test]
fn containers_that_are_no_pods_pass_through() {
    for args in ["", "IgnoreUnknown=1;FOO=BAR"] {
        let outcome = Pod::new().with("CNI_ARGS", args).call("ADD");
        assert!(outcome.success, "{}", outcome.stdout);
    }
}

#[test]
fn an_absent_agent_means_try_again_at_once() {
    let pod = Pod::new();
    let outcome = pod.call("ADD");
    let socket = pod.socket().display().to_string();
    outcome.assert_error(11, &["node agent is away", &socket, "last sign"]);
    assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
    pod.assert_nothing_left(&[]);
}

#[test]
fn the_time_without_an_agent_is_told_in_words() {
    for (seconds, words) in [
        (30, "last sign of it 3"),
        (150, "last sign of it 2 min 3"),
        (7500, "last sign of it 2 h 5 min ago"),
        (3 * 86400, "last sign of it 3 days ago"),
    ] {
        let pod = Pod::new();
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::open(pod.folder.path()).unwrap().set_modified(then).unwrap();
        pod.call("ADD").assert_error(11, &["node agent is away", words]);
    }
}

#[test]
fn a_socket_that_a_dead_agent_left_means_try_again_at_once() {
    let pod = Pod::new();
    drop(UnixListener::bind(pod.socket()).unwrap());
    let outcome = pod.call("ADD");
    outcome.assert_error(11, &["node agent is away", "refused"]);
    assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
    pod.assert_nothing_left(&["plugin.sock"]);
}

#[test]
fn an_agent_that_never_was_is_told_apart() {
    let pod = Pod::new().with_key("agentSocket", json!("/nowhere/at/all/plugin.sock"));
    pod.call("ADD")
        .assert_error(11, &["/nowhere/at/all/plugin.sock", "its folder /nowhere/at/all"]);
}

#[test]
fn an_agent_that_accepts_and_never_answers_is_waited_for_five_seconds() {
    let pod = Pod::new();
    let agent = Agent::sending(&pod.socket(), b"");
    let outcome = pod.call("ADD");
    outcome.assert_error(11, &["did not answer within 4.5s"]);
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
    // Hanging up tells the agent to undo.
    assert_eq!(agent.asked().rest, b"");
    pod.assert_nothing_left(&["plugin.sock"]);
}

#[test]
fn the_patience_is_a_setting() {
    let pod = Pod::new().with_key("timeoutSeconds", json!(1));
    let agent = Agent::sending(&pod.socket(), b"\x00\x00");
    let outcome = pod.call("ADD");
    outcome.assert_error(11, &["did not answer within 900ms"]);
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
    agent.asked();
}

/// A queue without room makes connect(2) itself wait.
#[test]
fn an_agent_that_does_not_even_accept_is_not_waited_for_longer() {
    let pod = Pod::new().with_key("timeoutSeconds", json!(1));
    let listener = UnixListener::bind(pod.socket()).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _fills_the_queue = UnixStream::connect(pod.socket()).unwrap();
    let outcome = pod.call("ADD");
    outcome.assert_error(11, &["did not answer within 900ms"]);
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
}

#[test]
fn replies_that_are_none_mean_try_again() {
    let done = plugin_api::encode(&Reply { version: VERSION, outcome: Outcome::Done }).unwrap();
    let cases: [(&[u8], &str); 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "exceeds"),
        (&[0xff; 4], "exceeds"),
        (&[0, 0, 0, 2, b'{', b'}'], "malformed"),
        (&[0, 0, 0, 0], "malformed"),
        (b"\x00\x00\x00\x26{\"version\":1,\"outcome\":\"neverHeardOf\"}", "malformed"),
        (&done, "answered Add with Done"),
    ];
    for (bytes, word) in cases {
        let pod = Pod::new();
        let agent = Agent::sending(&pod.socket(), bytes);
        pod.call("ADD").assert_error(11, &[word]);
        agent.asked();
    }
}

#[test]
fn an_agent_that_hangs_up_means_try_again() {
    let whole =
        plugin_api::encode(&Reply { version: VERSION, outcome: Outcome::Captured }).unwrap();
    for length in [0, 3, 4, whole.len() - 1] {
        let pod = Pod::new();
        let agent = Agent::hanging_up(&pod.socket(), &whole[..length]);
        pod.call("ADD").assert_error(11, &["hung up"]);
        agent.asked();
    }
}

#[test]
fn another_version_of_the_contract_is_named() {
    for body in
        [r#"{"version":2,"outcome":"captured"}"#, r#"{"version":2,"shape":"of the future"}"#]
    {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let pod = Pod::new();
        let agent = Agent::sending(&pod.socket(), &[&length, body.as_bytes()].concat());
        pod.call("ADD").assert_error(101, &["speaks version 2"]);
        agent.asked();
    }
}

#[test]
fn the_agents_refusals_reach_the_runtime() {
    for (code, number) in [
        (Code::TryAgain, 11),
        (Code::InvalidNetns, 8),
        (Code::InvalidRequest, 4),
        (Code::IncompatibleVersion, 101),
    ] {
        let pod = Pod::new();
        let agent = Agent::refusing(&pod.socket(), code);
        let outcome = pod.call("ADD");
        outcome.assert_error(number, &["rules: because"]);
        assert_eq!(outcome.error()["details"], "do this");
        agent.asked();
    }
}

#[test]
fn the_plugins_own_namespace_is_refused() {
    for (args, path) in [
        ("K8S_POD_NAMESPACE=default;K8S_POD_NAME=web", "/proc/self/ns/net"),
        ("", "/proc/thread-self/ns/net"),
    ] {
        let pod = Pod::new().with("CNI_NETNS", path).with("CNI_ARGS", args);
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        pod.call("ADD").assert_error(8, &[path, "itself"]);
        agent.assert_not_asked();
    }
    assert_ne!(
        identity(path_of(&Pod::new().netns).as_ref()),
        identity("/proc/self/ns/net".as_ref())
    );
}

#[test]
fn what_is_no_namespace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = pipe.display().to_string();
    for (path, word) in
        [("/nowhere/netns", "open"), ("/dev/null", "not a namespace"), (&pipe, "not a namespace")]
    {
        let pod = Pod::new().with("CNI_NETNS", path);
        let outcome = pod.call("ADD");
        outcome.assert_error(8, &[path, word]);
        assert!(outcome.took < runtime::PATIENCE);
    }
}

/// The kernel names whoever called listen(2) last as the peer. The test executes itself
/// as somebody else for this one call.
#[test]
#[expect(clippy::disallowed_methods, reason = "to become somebody else")]
fn an_impostor_is_told_nothing() {
    const NOBODY: u32 = 65534;
    let backlog = Backlog::new(8).unwrap();
    if nix::unistd::Uid::effective().as_raw() == NOBODY {
        return listen(&std::io::stdin(), backlog).unwrap();
    }
    let pod = Pod::new();
    let listener = UnixListener::bind(pod.socket()).unwrap();
    let somebody_else = Command::new("/proc/self/exe")
        .args(["--exact", "add::an_impostor_is_told_nothing"])
        .stdin(OwnedFd::from(listener.try_clone().unwrap()))
        .stdout(Stdio::null())
        .uid(NOBODY)
        .status()
        .unwrap();
    assert!(somebody_else.success());
    pod.call("ADD").assert_error(11, &["user 65534", "not by root"]);
    let (mut stream, _) = listener.accept().unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).unwrap();
    assert_eq!(told, b"");
}
