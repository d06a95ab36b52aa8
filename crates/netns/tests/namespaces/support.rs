//! What the tests share.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns::{Fence, PodNetns};
use nix::mount::{MntFlags, umount2};

/// Longer than anything here takes, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace of the test's own.
pub fn scratch() -> PodNetns {
    PodNetns::scratch().expect("these tests make network namespaces and need root")
}

/// Inode of the namespace in which the calling thread is.
pub fn here() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

/// Runs a program inside `netns`: a child belongs to the namespace of the thread that
/// starts it, here a fence worker.
pub fn run(fence: &Fence, netns: &PodNetns, command: &str) {
    run_with(fence, netns, command, "");
}

#[expect(clippy::disallowed_methods, reason = "these tests run ip and nft themselves")]
pub fn run_with(fence: &Fence, netns: &PodNetns, command: &str, stdin: &str) {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let stdin = stdin.to_owned();
    let job = move || {
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", words[0]));
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = fence.run(netns, job).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
}

/// A folder for namespaces with names. Whatever the test came to, no mount stays on it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for mounted in [self.path().join("netns"), self.path().to_owned()] {
            while umount2(&mounted, MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

/// Looks again and again until `observed` holds.
pub fn eventually(what: &str, mut observed: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !observed() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
