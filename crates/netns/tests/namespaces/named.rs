//! Namespaces with a path come and go without a trace.

use std::path::Path;

use netns::{NamedNetns, NetnsError, PodNetns, release_folder};
use nix::mount::{MsFlags, mount};

use crate::support::Folder;

/// How many mounts there are at or below `path`.
fn mounts_below(path: &Path) -> usize {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = all.lines().map(|line| line.split(' ').nth(4).unwrap());
    points.filter(|point| Path::new(point).starts_with(path)).count()
}

#[test]
fn dropping_and_releasing_leave_nothing() {
    let parent = Folder::new();
    let folder = parent.path().join("netns");
    let named = NamedNetns::create(&folder, "pod").unwrap();
    assert_eq!(named.path(), folder.join("pod"));
    assert_eq!(PodNetns::open(named.path()).unwrap().id(), named.netns().id());
    assert!(mounts_below(&folder) >= 2, "the folder's mount and the namespace's");
    drop(named);
    assert!(!folder.join("pod").exists());
    release_folder(&folder).unwrap();
    assert_eq!(mounts_below(parent.path()), 0);
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn releasing_twice_or_nothing_is_fine() {
    let parent = Folder::new();
    release_folder(parent.path()).unwrap();
    release_folder(&parent.path().join("absent")).unwrap();
    drop(NamedNetns::create(parent.path(), "pod").unwrap());
    release_folder(parent.path()).unwrap();
    release_folder(parent.path()).unwrap();
}

#[test]
fn releasing_undoes_stacked_mounts() {
    let parent = Folder::new();
    let (folder, none) = (parent.path(), None::<&str>);
    for _ in 0..3 {
        mount(Some(folder), folder, none, MsFlags::MS_BIND, none).unwrap();
    }
    release_folder(folder).unwrap();
    assert_eq!(mounts_below(folder), 0);
}

#[test]
fn releasing_takes_the_names_of_what_is_still_there() {
    let parent = Folder::new();
    let named = NamedNetns::create(parent.path(), "pod").unwrap();
    release_folder(parent.path()).unwrap();
    assert_eq!(mounts_below(parent.path()), 0);
    assert!(matches!(PodNetns::open(named.path()), Err(NetnsError::NotNetns { .. })));
}

#[test]
fn a_name_is_given_once() {
    let parent = Folder::new();
    let first = NamedNetns::create(parent.path(), "pod").unwrap();
    let error = NamedNetns::create(parent.path(), "pod").unwrap_err().to_string();
    assert!(error.contains("pod") && error.contains("exists"), "{error}");
    assert_eq!(PodNetns::open(first.path()).unwrap().id(), first.netns().id());
    drop(first);
    drop(NamedNetns::create(parent.path(), "pod").unwrap());
    release_folder(parent.path()).unwrap();
}

#[test]
fn a_name_stays_in_its_folder() {
    let parent = Folder::new();
    for name in ["", ".", "..", "../x", "a/b", "/etc/x", "a/"] {
        assert!(NamedNetns::create(parent.path(), name).is_err(), "{name:?}");
    }
    assert_eq!(mounts_below(parent.path()), 0);
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn many_makers_at_once_share_one_folder() {
    let parent = Folder::new();
    std::thread::scope(|scope| {
        for maker in 0..8 {
            let folder = parent.path();
            scope.spawn(move || {
                let named = NamedNetns::create(folder, &format!("pod-{maker}")).unwrap();
                assert_eq!(PodNetns::open(named.path()).unwrap().id(), named.netns().id());
            });
        }
    });
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    release_folder(parent.path()).unwrap();
    assert_eq!(mounts_below(parent.path()), 0);
}
