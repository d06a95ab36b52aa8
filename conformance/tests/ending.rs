//! A run that is told to end in the middle leaves nothing behind.
//!
//! Needs root, and the mesh's binaries beside this package's, where a build of the whole
//! workspace puts them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_terminated_run_removes_its_lab() {
    ends_cleanly(Signal::SIGTERM);
}

#[test]
fn an_interrupted_run_removes_its_lab() {
    ends_cleanly(Signal::SIGINT);
}

fn ends_cleanly(signal: Signal) {
    let mut suite = start();
    let pid = i32::try_from(suite.id()).unwrap();
    let root = Path::new(lab::DEFAULT_ROOT);
    let id = until("the lab is there", || {
        assert!(suite.try_wait().unwrap().is_none(), "the suite ended before it made a lab");
        lab::others(root).into_iter().find(|lab| lab.pid == pid).map(|lab| lab.id)
    });
    let folder = root.join(&id);
    until("a pod is there", || pods(&folder).then_some(()));
    kill(Pid::from_raw(pid), signal).unwrap();
    let status: ExitStatus = until("the suite has ended", || suite.try_wait().unwrap());
    assert!(!status.success(), "a run that was cut short is no success");

    assert!(!folder.exists(), "{} is left", folder.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "a mount of lab {id} is left");
}

/// Whether the lab has come as far as pods, and so has processes to end, too.
fn pods(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder.join("netns")).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("pod-"))
}

#[expect(clippy::disallowed_methods, reason = "the program under test")]
fn start() -> Child {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(["run", "--only", "v4/release-leaves-nothing"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
