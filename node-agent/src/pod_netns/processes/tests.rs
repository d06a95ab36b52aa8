use std::os::unix::fs::symlink;

use netns::Fence;

use super::*;
use crate::testing::{ScratchPod, eventually};

const UID: &str = "7f3c1c52-9d5c-4d43-8f6f-0d9f1b6a0c11";
const OTHER: &str = "11111111-2222-3333-4444-555555555555";

/// A `/proc` of our own making.
struct Node {
    folder: tempfile::TempDir,
    processes: Processes,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let locator = Locator::new(Fence::new(1).unwrap()).unwrap();
        let processes = Processes::new(folder.path().to_owned(), locator);
        let node = Self { folder, processes };
        std::fs::write(node.folder.path().join("uptime"), "").unwrap();
        node.run(1, Path::new("/proc/self/ns/net"), "0::/init.scope\n");
        node
    }

    fn run(&self, pid: u32, netns: &Path, group: &str) {
        let folder = self.folder.path().join(pid.to_string());
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(netns, folder.join("ns/net")).unwrap();
        std::fs::write(folder.join("cgroup"), group).unwrap();
    }

    fn end(&self, pid: u32) {
        std::fs::remove_dir_all(self.folder.path().join(pid.to_string())).unwrap();
    }

    async fn find(&self, pod: &ScratchPod) -> Result<PodNetns, ProcessError> {
        Ok(self.processes.find(&PodUid(UID.into()), &[pod.ip]).await?.0)
    }
}

fn group(uid: &str) -> String {
    format!("0::/kubepods/burstable/pod{uid}/4711\n")
}

#[tokio::test]
async fn a_process_leads_to_its_pod() {
    let (node, pod) = (Node::new(), ScratchPod::new());
    for pid in 10..20 {
        node.run(pid, &pod.path(), &group(UID));
    }
    assert_eq!(node.find(&pod).await.unwrap().id(), pod.netns().id());
}

#[tokio::test]
async fn a_process_that_has_ended_does_not_hide_the_others() {
    let (node, pod) = (Node::new(), ScratchPod::new());
    node.run(10, &pod.path(), &group(UID));
    node.run(11, &pod.path(), &group(UID));
    node.find(&pod).await.unwrap();
    node.end(10);
    assert_eq!(node.find(&pod).await.unwrap().id(), pod.netns().id());
    node.end(11);
    assert!(matches!(node.find(&pod).await, Err(ProcessError::None)));
}

#[tokio::test]
async fn a_process_of_another_pod_cannot_pass_its_namespace_off_as_this_pods() {
    let (node, pod, trap) = (Node::new(), ScratchPod::new(), ScratchPod::new());
    node.run(10, &trap.path(), &group(OTHER));
    let found = node.find(&pod).await;
    assert!(matches!(found, Err(ProcessError::None)), "the address alone: {found:?}");
}

#[tokio::test]
async fn the_right_one_is_told_from_one_with_the_same_address() {
    let (node, pod, trap) = (Node::new(), ScratchPod::new(), ScratchPod::new());
    node.run(10, &trap.path(), &group(OTHER));
    node.run(11, &trap.path(), "0::/user.slice\n");
    node.run(12, &pod.path(), &group(UID));
    assert_eq!(node.find(&pod).await.unwrap().id(), pod.netns().id());
}

#[tokio::test]
async fn two_that_nothing_tells_apart_are_none() {
    let (node, pod, twin) = (Node::new(), ScratchPod::new(), ScratchPod::new());
    node.run(10, &twin.path(), &group(UID));
    node.run(11, &pod.path(), &group(UID));
    assert!(matches!(node.find(&pod).await, Err(ProcessError::Several)));
}

#[tokio::test]
async fn where_groups_name_no_pods_the_address_must_do() {
    let (node, pod) = (Node::new(), ScratchPod::new());
    node.run(10, &pod.path(), "0::/\n");
    assert_eq!(node.find(&pod).await.unwrap().id(), pod.netns().id());
}

#[tokio::test]
async fn the_nodes_own_namespace_is_no_pods() {
    let node = Node::new();
    node.run(10, Path::new("/proc/self/ns/net"), &group(UID));
    let loopback = ["127.0.0.1".parse().unwrap()];
    let found = node.processes.find(&PodUid(UID.into()), &loopback).await;
    assert!(matches!(found, Err(ProcessError::None)));
}

#[tokio::test]
async fn all_who_ask_at_a_time_share_one_look() {
    let (node, pod) = (Node::new(), ScratchPod::new());
    node.run(10, &pod.path(), &group(UID));
    let asked = (0..50).map(|_| node.find(&pod));
    let found = futures_util::future::join_all(asked).await;
    assert!(found.iter().all(Result::is_ok));
    let began = async || node.processes.looks.lock().await.latest.as_ref().unwrap().0;
    let first = began().await;
    node.find(&pod).await.unwrap();
    assert_eq!(first, began().await, "and so do those who come a moment later");
}

#[tokio::test]
async fn a_look_that_takes_too_long_is_not_begun_again_by_the_next_who_asks() {
    let (node, pod) = (Node::new(), ScratchPod::new());
    node.run(10, &pod.path(), &group(UID));
    // Who opens a pipe that nobody writes to waits.
    let pipe = node.folder.path().join("10/cgroup");
    std::fs::remove_file(&pipe).unwrap();
    pod.run(&format!("mkfifo {}", pipe.display()));
    assert!(matches!(node.find(&pod).await, Err(ProcessError::TooSlow)));
    let hanging = Instant::now();
    for _ in 0..100 {
        assert!(matches!(node.find(&pod).await, Err(ProcessError::TooSlow)), "it hangs still");
    }
    assert!(hanging.elapsed() < PATIENCE, "nobody waits for it again");
    assert_eq!(node.processes.looks.lock().await.hanging.len(), 1, "nor is another one begun");
    // It comes to an end, and the next one is possible.
    std::fs::write(&pipe, group(UID)).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    std::fs::write(&pipe, group(UID)).unwrap();
    eventually("the next look", || async { node.find(&pod).await.is_ok() }).await;
}

#[test]
fn groups_name_pods_in_several_ways() {
    let systemd = UID.replace('-', "_");
    let hash = "0123456789abcdef0123456789abcdef";
    for (group, pod) in [
        (group(UID), Some(UID)),
        (format!("12:cpu:/kubepods/besteffort/pod{UID}/abc\n11:pids:/x\n"), Some(UID)),
        (
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod{systemd}.slice/cri-containerd-abc.scope\n"
            ),
            Some(UID),
        ),
        (format!("0::/kubepods/pod{hash}/c"), Some(hash)),
        (format!("0::/../../pod{UID}"), Some(UID)),
        ("0::/kubepods.slice\n".to_owned(), None),
        ("0::/podman/container\n".to_owned(), None),
        (format!("0::/pod{}\n", &UID[1..]), None),
        (String::new(), None),
    ] {
        assert_eq!(pod_of(&group).as_deref(), pod, "{group}");
    }
}
