//! The plugin's own log.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use plugin_api::{Code, Outcome};
use serde_json::json;

use crate::agent::Agent;
use crate::runtime::Pod;

const MIN_BYTES: usize = 64 * 1024;

fn logging() -> (Pod, PathBuf) {
    let pod = Pod::new();
    let log = pod.folder.path().join("plugin.log");
    (pod.with_key("logFile", json!(log)).with_key("logMaxBytes", json!(MIN_BYTES)), log)
}

fn lines(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "half a line");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_pods_story_is_in_one_file_with_verb_pod_and_outcome() {
    let (pod, log) = logging();
    pod.call("ADD").assert_error(11, &["away"]);
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    assert!(pod.call("ADD").success);
    agent.asked();
    std::fs::remove_file(pod.socket()).unwrap();
    let agent = Agent::refusing(&pod.socket(), Code::NotCaptured);
    pod.call("CHECK").assert_error(102, &[]);
    agent.asked();
    std::fs::remove_file(pod.socket()).unwrap();
    let agent = Agent::answering(&pod.socket(), Outcome::Done);
    pod.call("DEL").assert_silent_success();
    agent.asked();

    let found = lines(&log);
    let words = [
        (" 0b1c-2d c0ffee eth0 ADD default/web: ", "away"),
        (" 0b1c-2d c0ffee eth0 ADD default/web: ", "captured"),
        (" 0b1c-2d c0ffee eth0 CHECK default/web: ", "rules: because (CNI code 102)"),
        (" 0b1c-2d c0ffee eth0 DEL default/web: ", "done"),
    ];
    assert_eq!(found.len(), words.len(), "{found:#?}");
    for (line, (subject, outcome)) in found.iter().zip(words) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        assert!(rest.starts_with("sluice-cni[") && rest.ends_with(" ms)"), "{line}");
        assert!(rest.contains(subject) && rest.contains(outcome), "{line}");
    }
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_full_file_makes_way_once_and_nothing_is_lost_in_a_crowd() {
    const PLUGINS: usize = 200;
    let (pod, log) = logging();
    // So nearly full that the crowd fills it.
    let filler = format!("{}\n", "x".repeat(63)).repeat((MIN_BYTES - 4096) / 64);
    std::fs::write(&log, &filler).unwrap();
    let started: Vec<_> = (0..PLUGINS).map(|_| pod.start("ADD")).collect();
    for child in started {
        child.wait_with_output().unwrap();
    }
    let full = log.with_extension("log.1");
    let all: Vec<_> = [lines(&full), lines(&log)].concat();
    let own = all.iter().filter(|line| line.contains("node agent is away")).count();
    assert_eq!(own, PLUGINS);
    assert_eq!(all.iter().filter(|line| line.starts_with("xxx")).count(), filler.len() / 64);
    for file in [&full, &log] {
        let length = std::fs::metadata(file).unwrap().len();
        // Whoever has it open while another renames it still writes its line.
        assert!(length < 2 * MIN_BYTES as u64, "{length}");
    }
    pod.assert_nothing_left(&["plugin.log", "plugin.log.1"]);
}

#[test]
fn a_log_that_cannot_be_written_keeps_no_pod_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for log in [folder.path().join("no/such/folder/x.log"), folder.path().to_owned(), link, pipe] {
        let pod = Pod::new().with_key("logFile", json!(log));
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        let outcome = pod.call("ADD");
        assert!(outcome.success, "{}", outcome.stdout);
        assert!(outcome.stderr.contains("log to "), "{}", outcome.stderr);
        agent.asked();
    }
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn without_the_key_nothing_is_written() {
    let pod = Pod::new();
    pod.call("ADD").assert_error(11, &[]);
    pod.assert_nothing_left(&[]);
}
