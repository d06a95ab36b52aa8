use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// A plugin that speaks, and differs from others by `note`.
fn plugin(note: &str) -> String {
    format!(
        "#!/bin/sh\n# {note}\necho '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}'\n"
    )
}

struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder }
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn target(&self) -> PathBuf {
        self.bin().join(NAME)
    }

    async fn place(&self, text: &str) -> Result<Placed, BinaryError> {
        let source = self.folder.path().join("source");
        std::fs::write(&source, text).unwrap();
        place(&source, &self.bin()).await
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.bin()).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test]
async fn it_is_placed_once_and_replaced_when_it_differs() {
    let node = Node::new();
    assert_eq!(node.place(&plugin("1")).await.unwrap(), Placed::Now);
    let first = std::fs::metadata(node.target()).unwrap();
    assert_eq!(first.mode() & 0o7777, 0o755);
    assert_eq!(node.place(&plugin("1")).await.unwrap(), Placed::Before);
    assert_eq!(std::fs::metadata(node.target()).unwrap().ino(), first.ino(), "the same file");

    assert_eq!(node.place(&plugin("2")).await.unwrap(), Placed::Now);
    assert_eq!(std::fs::read_to_string(node.target()).unwrap(), plugin("2"));
    assert_eq!(node.names(), [NAME]);
}

#[tokio::test]
async fn a_mode_that_runtimes_cannot_use_is_put_right() {
    let node = Node::new();
    node.place(&plugin("1")).await.unwrap();
    std::fs::set_permissions(node.target(), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(node.place(&plugin("1")).await.unwrap(), Placed::Now);
    assert_eq!(std::fs::metadata(node.target()).unwrap().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn what_an_agent_that_was_killed_has_left_is_no_obstacle() {
    let node = Node::new();
    let elsewhere = node.folder.path().join("elsewhere");
    std::fs::write(&elsewhere, "theirs").unwrap();
    std::os::unix::fs::symlink(&elsewhere, node.bin().join(FRESH)).unwrap();
    assert_eq!(node.place(&plugin("1")).await.unwrap(), Placed::Now);
    assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "theirs");
    assert_eq!(node.names(), [NAME]);
}

#[tokio::test]
async fn what_is_no_plugin_never_gets_its_name() {
    let node = Node::new();
    node.place(&plugin("good")).await.unwrap();
    for (text, told) in [
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("#!/bin/sh\necho hello\n", "\"hello\""),
        ("#!/bin/sh\necho '{\"supportedVersions\":[]}'\n", "supportedVersions"),
        ("#!/nonexistent\n", "execute"),
        ("", "execute"),
    ] {
        let error = node.place(text).await.unwrap_err().to_string();
        assert!(error.contains(told), "{text:?}: {error}");
        assert_eq!(std::fs::read_to_string(node.target()).unwrap(), plugin("good"));
        assert_eq!(node.names(), [NAME]);
    }
}

#[tokio::test]
async fn a_folder_or_source_that_is_not_there_is_named() {
    let node = Node::new();
    let nowhere = Path::new("/nonexistent");
    let error = place(nowhere, &node.bin()).await.unwrap_err().to_string();
    assert!(error.contains("read the plugin /nonexistent"), "{error}");
    let source = node.folder.path().join("source");
    std::fs::write(&source, plugin("1")).unwrap();
    let error = place(&source, nowhere).await.unwrap_err().to_string();
    assert!(error.contains("write /nonexistent"), "{error}");
}

#[tokio::test]
async fn it_is_removed_with_what_an_attempt_left_and_may_be_removed_twice() {
    let node = Node::new();
    node.place(&plugin("1")).await.unwrap();
    std::fs::write(node.bin().join(FRESH), "half").unwrap();
    std::fs::write(node.bin().join("bridge"), "theirs").unwrap();
    let present = present(&node.bin());
    assert_eq!(present.len(), 2);
    for path in present.iter().chain(&present) {
        remove(path).unwrap();
    }
    assert_eq!(node.names(), ["bridge"]);
}

/// Two threads execute it all the time, and so hold copies of every file that is open for
/// writing at that moment.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_replaced_two_hundred_times_without_a_failed_execution() {
    let node = Node::new();
    node.place(&plugin("0")).await.unwrap();
    let (stop, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let execute = |_| {
        let (target, stop, runs) = (node.target(), Arc::clone(&stop), Arc::clone(&runs));
        std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                #[expect(clippy::disallowed_methods, reason = "a runtime executes plugins")]
                match Command::new(&target).output() {
                    Ok(output) if output.status.success() && !output.stdout.is_empty() => {}
                    other => failures.push(format!("{other:?}")),
                }
                runs.fetch_add(1, Ordering::Relaxed);
            }
            failures
        })
    };
    let threads: Vec<_> = (0..2).map(execute).collect();
    for replacement in 1..=200 {
        let before = runs.load(Ordering::Relaxed);
        assert_eq!(node.place(&plugin(&replacement.to_string())).await.unwrap(), Placed::Now);
        while runs.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let failures = thread.join().unwrap();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
    }
}
