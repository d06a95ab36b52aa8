//! Jobs run where they should, whatever the job before did.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::sync::mpsc::channel;

use netns::{Fence, FenceError};

use crate::support::{Folder, PATIENCE, here, scratch};

#[test]
fn a_job_runs_in_its_namespace_and_the_caller_stays() {
    let (fence, pod, home) = (Fence::new(1).unwrap(), scratch(), here());
    assert_eq!(fence.run(&pod, here).unwrap(), pod.id().ino);
    assert_eq!(here(), home);
    assert_ne!(home, pod.id().ino);
}

#[test]
fn a_panicking_job_leaves_no_worker_in_the_wrong_namespace() {
    for workers in [1, 4] {
        let (fence, bad, good, home) = (Fence::new(workers).unwrap(), scratch(), scratch(), here());
        // More panics than workers: each has to be replaced, some more than once.
        for round in 0..3 * workers {
            let text = format!("round {round}");
            let told = text.clone();
            let (sender, ended) = channel();
            // As a panic, without a backtrace for every round in the test's output.
            let job = move || resume_unwind(Box::new(told));
            fence
                .submit(&bad, job, move |result| {
                    sender.send((result, here())).unwrap();
                })
                .unwrap();
            let (result, between_jobs) = ended.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(result, Err::<(), _>(FenceError::Panicked(t)) if t == text));
            assert_eq!(between_jobs, home);
            assert_eq!(fence.run(&good, here).unwrap(), good.id().ino);
        }
        assert!(!threads_in(bad.id().ino) && !threads_in(good.id().ino), "with {workers} workers");
    }
}

/// Whether any thread of this process is in the namespace. While somebody holds it its
/// inode means no other.
fn threads_in(inode: u64) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let found = threads.map(|thread| std::fs::metadata(thread.unwrap().path().join("ns/net")));
    // A thread that ended meanwhile has none.
    found.flatten().any(|found| found.ino() == inode)
}

#[test]
fn a_panicking_callback_costs_no_worker() {
    let (fence, pod) = (Fence::new(1).unwrap(), scratch());
    for _ in 0..3 {
        fence.submit(&pod, || (), |_| resume_unwind(Box::new("callback"))).unwrap();
        assert_eq!(fence.run(&pod, here).unwrap(), pod.id().ino);
    }
}

#[test]
fn the_panics_own_words_are_told() {
    let (fence, pod) = (Fence::new(1).unwrap(), scratch());
    let text = |result: Result<(), FenceError>| result.unwrap_err().to_string();
    let of = |words: &'static str| text(fence.run(&pod, move || resume_unwind(Box::new(words))));
    assert_eq!(of("a pity"), "job in network namespace panicked: a pity");
    let silent = text(fence.run(&pod, || resume_unwind(Box::new(7))));
    assert_eq!(silent, "job in network namespace panicked: no text");
}

#[test]
fn jobs_for_many_namespaces_do_not_mix() {
    let fence = Fence::new(4).unwrap();
    let pods: Vec<_> = (0..6).map(|_| scratch()).collect();
    let (sender, results) = channel();
    for round in 0..20 {
        for pod in &pods {
            let (sender, expected) = (sender.clone(), pod.id().ino);
            let job = move || {
                let seen = here();
                // Every fifth round goes wrong, among all those that do not.
                if round % 5 == 4 { resume_unwind(Box::new("now and then")) } else { seen }
            };
            let done = move |result| sender.send((expected, result)).unwrap();
            fence.submit(pod, job, done).unwrap();
        }
    }
    drop(sender);
    let (mut fine, mut panicked) = (0, 0);
    while let Ok((expected, result)) = results.recv_timeout(PATIENCE) {
        match result {
            Ok(seen) => {
                assert_eq!(seen, expected);
                fine += 1;
            }
            Err(FenceError::Panicked(_)) => panicked += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((fine, panicked), (16 * pods.len(), 4 * pods.len()));
}

#[test]
fn a_finished_job_does_not_keep_its_namespace_alive() {
    let (fence, pod) = (Fence::new(2).unwrap(), scratch());
    // As long as we hold the namespace ourselves its inode means no other.
    let (held, inode) = (pod.as_fd().try_clone_to_owned().unwrap(), pod.id().ino);
    fence.run(&pod, || ()).unwrap();
    let panicked = fence.run(&pod, || resume_unwind(Box::new("and after a panic")));
    assert!(matches!(panicked, Err::<(), _>(FenceError::Panicked(_))));
    assert_eq!(descriptors_of(inode), 2, "the pod's and ours");
    drop(pod);
    assert_eq!(descriptors_of(inode), 1, "only ours");
    assert!(!threads_in(inode));
    drop(held);
}

fn descriptors_of(inode: u64) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.as_os_str() == format!("net:[{inode}]").as_str()).count()
}

#[test]
fn a_deleted_name_does_not_matter_to_who_holds_the_namespace() {
    let folder = Folder::new();
    let fence = Fence::new(1).unwrap();
    let named = netns::NamedNetns::create(folder.path(), "pod").unwrap();
    let pod = named.netns().clone();
    drop(named);
    assert_eq!(fence.run(&pod, here).unwrap(), pod.id().ino);
}
