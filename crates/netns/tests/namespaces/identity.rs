//! What is a network namespace, and which one.

use std::fs::File;
use std::path::Path;

use netns::{Fence, NamedNetns, NetnsError, NetnsId, PodNetns};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use crate::support::{Folder, scratch};

fn refused(result: Result<PodNetns, NetnsError>) -> String {
    match result.unwrap_err() {
        error @ NetnsError::NotNetns { .. } => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn other_descriptors_are_refused() {
    let from_file = |path: &Path| PodNetns::from_fd(File::open(path).unwrap().into());
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(from_file(file.path())).contains("on a file system of type 0x"));
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    assert!(refused(PodNetns::from_fd(reader)).contains("on a file system of type 0x50495045"));
    for kind in ["mnt", "pid", "uts", "user"] {
        let found = refused(from_file(&Path::new("/proc/self/ns").join(kind)));
        assert!(found.contains(&format!("{kind}:[")), "{found}");
    }
}

#[test]
fn other_files_are_refused_without_waiting_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR).unwrap();
    refused(PodNetns::open(&pipe));
    refused(PodNetns::open(folder.path()));
    refused(PodNetns::open(Path::new("/dev/null")));
}

#[test]
fn another_kind_behind_a_bind_mount_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let none = None::<&str>;
    let uts = Some("/proc/self/ns/uts");
    mount(uts, file.path(), none, MsFlags::MS_BIND, none).unwrap();
    let result = PodNetns::open(file.path());
    umount2(file.path(), MntFlags::MNT_DETACH).unwrap();
    assert!(refused(result).contains("a namespace of another kind"));
}

#[test]
fn a_missing_path_is_named() {
    let error = PodNetns::open(Path::new("/run/netns/no-such-pod")).unwrap_err();
    assert!(matches!(error, NetnsError::Open { .. }));
    assert!(error.to_string().starts_with("open network namespace /run/netns/no-such-pod: "));
}

#[test]
fn a_deleted_namespace_cannot_be_opened() {
    let folder = Folder::new();
    let named = NamedNetns::create(folder.path(), "pod").unwrap();
    let path = named.path().to_owned();
    assert_eq!(PodNetns::open(&path).unwrap().id(), named.netns().id());
    drop(named);
    assert!(matches!(PodNetns::open(&path), Err(NetnsError::Open { .. })));
    // What an unclean end leaves behind: the file without the namespace on it.
    File::create(&path).unwrap();
    refused(PodNetns::open(&path));
}

#[test]
fn one_namespace_has_one_identity() {
    let pod = scratch();
    let again = PodNetns::from_fd(std::os::fd::AsFd::as_fd(&pod).try_clone_to_owned().unwrap());
    assert_eq!(again.unwrap().id(), pod.id());
    let inside = Fence::new(1).unwrap().run(&pod, PodNetns::current).unwrap().unwrap();
    assert_eq!(inside.id(), pod.id());
    assert_ne!(PodNetns::current().unwrap().id(), pod.id());
}

#[test]
fn cookies_tell_namespaces_apart() {
    let (a, b) = (scratch().id(), scratch().id());
    assert!(a.cookie.is_some(), "these tests need Linux 5.14");
    assert_ne!(a.cookie, b.cookie);
}

/// The kernel gives the inode number of a namespace that is gone to the next one.
#[test]
fn a_reused_inode_is_another_namespace() {
    let gone = scratch().id();
    let next = NetnsId { cookie: scratch().id().cookie, ..gone };
    assert_ne!(gone, next);
    assert_ne!(gone.to_string(), next.to_string(), "and a log tells them apart");
}
