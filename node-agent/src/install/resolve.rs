//! Where a path of the node leads, for an agent that sees the node's root directory in a folder:
//! an absolute link means the node's file of that name there, not the agent's own.
//!
//! Walked here rather than by the kernel (`openat2` with `RESOLVE_IN_ROOT`), because what is to
//! be made may not be there yet, and a rename needs the folder's path. Who could change links
//! meanwhile is root on the node.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The path as seen from here, free of links, where the node has its `path`. What is not there
/// is taken as it is written.
///
/// # Errors
/// `ELOOP`, and what reading a link answers.
pub fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut left = parts(path);
    let (mut done, mut links) = (PathBuf::new(), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            // Nothing is above the root.
            done.pop();
            continue;
        }
        let next = done.join(&part);
        match std::fs::read_link(root.join(&next)) {
            Ok(_) if links == MOST_LINKS => return Err(Errno::ELOOP.into()),
            Ok(target) => {
                links += 1;
                if target.is_absolute() {
                    done.clear();
                }
                left.extend(parts(&target));
            }
            // No link, or not there.
            Err(error) if is_no_link(&error) => done = next,
            Err(error) => return Err(error),
        }
    }
    Ok(root.join(done))
}

/// A path below `root`, as it is seen from here, likewise.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_seen(root: &Path, seen: &Path) -> io::Result<PathBuf> {
    match seen.strip_prefix(root) {
        Ok(path) => resolve(root, path),
        Err(_) => Ok(seen.to_owned()),
    }
}

fn is_no_link(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::NotFound)
        || kind == io::ErrorKind::NotADirectory
}

/// The last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<_> = path.components().filter_map(part).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_within_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("etc/cni")).unwrap();
        std::fs::create_dir_all(at("var/lib/cni")).unwrap();
        symlink("/var/lib/cni", at("etc/cni/net.d")).unwrap();
        symlink("../../../../../../var/lib", at("etc/up")).unwrap();
        symlink("up/cni", at("etc/twice")).unwrap();
        symlink("/gone", at("etc/dangling")).unwrap();
        symlink("/etc/round", at("etc/round")).unwrap();
        for (path, leads_to) in [
            ("/etc/cni/net.d", "var/lib/cni"),
            ("/etc/cni/net.d/new.conflist", "var/lib/cni/new.conflist"),
            ("/etc/up/x", "var/lib/x"),
            ("/etc/twice", "var/lib/cni"),
            ("/etc/./cni/../up", "var/lib"),
            ("/etc/dangling", "gone"),
            ("/not/there", "not/there"),
            ("/", ""),
        ] {
            assert_eq!(resolve(root.path(), Path::new(path)).unwrap(), at(leads_to), "{path}");
        }
        let round = resolve(root.path(), Path::new("/etc/round")).unwrap_err();
        assert_eq!(round.raw_os_error(), Some(Errno::ELOOP as i32));
        let seen = resolve_seen(root.path(), &at("etc/cni/net.d")).unwrap();
        assert_eq!(seen, at("var/lib/cni"));
        let elsewhere = Path::new("/run/elsewhere");
        assert_eq!(resolve_seen(root.path(), elsewhere).unwrap(), elsewhere);
    }
}
