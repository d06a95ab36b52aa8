//! `whenAgentAbsent: allow-known`: without an agent, pods that it has written down as being
//! outside the mesh start, and nobody else.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use plugin_api::{Code, KNOWN_FILE, KNOWN_VERSION, KnownOutside, KnownPod, Outcome};
use serde_json::json;

use crate::agent::Agent;
use crate::runtime::Pod;

fn pod() -> Pod {
    Pod::new().with_key("whenAgentAbsent", json!("allow-known"))
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// What an agent would have written.
fn list(pods: &[(&str, &str, &str)]) -> KnownOutside {
    let pods = pods.iter().map(|(namespace, name, uid)| KnownPod {
        namespace: (*namespace).to_owned(),
        name: (*name).to_owned(),
        uid: (*uid).to_owned(),
    });
    KnownOutside { version: KNOWN_VERSION, boot: boot(), pods: pods.collect() }
}

fn own() -> KnownOutside {
    list(&[("default", "other", "7"), ("default", "web", "0b1c-2d")])
}

fn write(pod: &Pod, list: &KnownOutside) -> File {
    let path = pod.folder.path().join(KNOWN_FILE);
    std::fs::write(&path, serde_json::to_vec(list).unwrap()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    File::options().write(true).open(path).unwrap()
}

#[test]
fn a_pod_known_to_be_outside_starts_without_an_agent_and_it_is_said() {
    let pod = pod();
    write(&pod, &own());
    let outcome = pod.call("ADD");
    assert!(outcome.success, "{}", outcome.stdout);
    for words in ["default/web", "node agent is away", "outside the mesh", "allow-known"] {
        assert!(outcome.stderr.contains(words), "{words:?} is not in {}", outcome.stderr);
    }
}

#[test]
fn it_starts_when_the_agent_hangs_or_dies_too() {
    for agent in [Agent::sending, Agent::hanging_up] {
        let pod = pod().with_key("timeoutSeconds", json!(1));
        write(&pod, &own());
        let agent = agent(&pod.socket(), b"");
        assert!(pod.call("ADD").success);
        agent.asked();
    }
}

#[test]
fn closed_is_the_default() {
    let pod = pod().with_key("whenAgentAbsent", json!(null));
    write(&pod, &own());
    pod.call("ADD").assert_error(11, &["node agent is away"]);
    let pod = pod.with_key("whenAgentAbsent", json!("closed"));
    pod.call("ADD").assert_error(11, &["node agent is away"]);
}

#[test]
fn an_agent_that_answers_is_believed_and_not_the_list() {
    let pod = pod();
    write(&pod, &own());
    let agent = Agent::refusing(&pod.socket(), Code::TryAgain);
    pod.call("ADD").assert_error(11, &["rules: because"]);
    agent.asked();
    std::fs::remove_file(pod.socket()).unwrap();
    let agent = Agent::answering(&pod.socket(), Outcome::Done);
    pod.call("ADD").assert_error(11, &["answered Add"]);
    agent.asked();
}

/// Names return with the next pod of a set, UIDs do not.
#[test]
fn all_of_the_pod_must_be_known() {
    for listed in
        [("default", "web", "another"), ("default", "db", "0b1c-2d"), ("shop", "web", "0b1c-2d")]
    {
        let pod = pod();
        write(&pod, &list(&[listed]));
        pod.call("ADD").assert_error(11, &["node agent is away", "not known to be outside"]);
    }
    let pod = pod().with("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web");
    write(&pod, &own());
    pod.call("ADD").assert_error(11, &["tells no UID"]);
}

#[test]
fn without_a_list_everybody_waits() {
    pod().call("ADD").assert_error(11, &["node agent is away", "no list", KNOWN_FILE]);
}

#[test]
fn the_list_of_another_boot_is_not_believed() {
    let pod = pod();
    write(&pod, &KnownOutside { boot: "another".to_owned(), ..own() });
    pod.call("ADD").assert_error(11, &["another boot"]);
}

#[test]
fn a_list_that_nobody_stands_by_any_more_is_not_believed() {
    let now = SystemTime::now();
    let (two_hours, half_an_hour) = (Duration::from_secs(7200), Duration::from_secs(1800));
    let pod = pod();
    let file = write(&pod, &own());
    file.set_modified(now - half_an_hour).unwrap();
    assert!(pod.call("ADD").success);
    file.set_modified(now - two_hours).unwrap();
    pod.call("ADD").assert_error(11, &["s old", "not believed"]);
    file.set_modified(now + two_hours).unwrap();
    pod.call("ADD").assert_error(11, &["from the future"]);
}

#[test]
fn what_others_than_root_could_have_written_is_not_believed() {
    for mode in [0o604, 0o640, 0o622] {
        let pod = pod();
        write(&pod, &own()).set_permissions(Permissions::from_mode(mode)).unwrap();
        pod.call("ADD").assert_error(11, &["not root's alone"]);
    }
    let pod = pod();
    let file = write(&pod, &own());
    nix::unistd::fchown(&file, Some(65534.into()), None).unwrap();
    pod.call("ADD").assert_error(11, &["not root's alone"]);

    let pod = self::pod();
    write(&pod, &own());
    let open = Permissions::from_mode(0o777);
    std::fs::set_permissions(pod.folder.path(), open).unwrap();
    pod.call("ADD").assert_error(11, &["not root's alone"]);
}

#[test]
fn what_is_no_list_is_not_believed_and_not_waited_for() {
    let path = |pod: &Pod| pod.folder.path().join(KNOWN_FILE);
    let garbage: [&[u8]; 4] = [b"", b"{", b"[]", br#"{"version":1,"boot":7,"pods":{}}"#];
    for bytes in garbage {
        let pod = pod();
        write(&pod, &own());
        std::fs::write(path(&pod), bytes).unwrap();
        pod.call("ADD").assert_error(11, &["no list"]);
    }
    let pod = pod();
    write(&pod, &KnownOutside { version: 2, ..own() });
    pod.call("ADD").assert_error(11, &["of version 2"]);

    let pod = self::pod();
    nix::unistd::mkfifo(&path(&pod), nix::sys::stat::Mode::S_IRUSR).unwrap();
    pod.call("ADD").assert_error(11, &["not root's alone"]);

    let pod = self::pod();
    std::os::unix::fs::symlink("/proc/self/environ", path(&pod)).unwrap();
    pod.call("ADD").assert_error(11, &["no list"]);

    let pod = self::pod();
    write(&pod, &own()).set_len(plugin_api::MAX_KNOWN as u64 + 1).unwrap();
    pod.call("ADD").assert_error(11, &["file too large"]);
}

/// The list says who may start, not who is as he should be.
#[test]
fn check_does_not_read_it() {
    let pod = pod();
    write(&pod, &own());
    pod.call("CHECK").assert_error(11, &["node agent is away"]);
}
