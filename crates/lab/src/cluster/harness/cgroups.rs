//! Control groups of a machine: one in each hierarchy of the host, so that what runs on the
//! machine is below it, and nothing of it stays when the machine is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::init::fasten;

/// Where the host keeps its hierarchies.
const HOST: &str = "/sys/fs/cgroup";
/// How long the kernel may take to see that a group has no process left.
const EMPTY_BY: Duration = Duration::from_secs(5);

/// A hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    at: PathBuf,
    kind: String,
    options: String,
}

/// Puts the calling process into groups of the machine's own, which are made when absent.
pub(super) fn join(machine: &str, folder: &Path) -> io::Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.at.join(group_name(machine, folder));
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        prepare(&hierarchy, &group);
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).map_err(|error| {
            io::Error::other(format!("join control group {}: {error}", group.display()))
        })?;
    }
    Ok(())
}

/// A new group of `cpuset` has no processor and no memory, and takes no process then.
fn prepare(hierarchy: &Hierarchy, group: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(parent) = fs::read(hierarchy.at.join(file)) {
            // Where it fails, joining fails and says so.
            let _ = fs::write(group.join(file), parent);
        }
    }
}

/// Mounts all hierarchies of the host at `at`, as the calling process's namespace sees them.
pub(super) fn mount_all(at: &Path) -> io::Result<()> {
    let found = hierarchies()?;
    let unified = found.iter().any(|hierarchy| hierarchy.at == Path::new(HOST));
    if !unified {
        fasten("tmpfs", at, "tmpfs", "mode=755")?;
    }
    for hierarchy in found {
        let below = hierarchy.at.strip_prefix(HOST).unwrap_or(Path::new(""));
        fasten("cgroup", &at.join(below), &hierarchy.kind, &hierarchy.options)?;
    }
    Ok(())
}

/// Removes the groups of a machine that has ended, and all below them.
pub(super) fn remove(machine: &str, folder: &Path) {
    let Ok(found) = hierarchies() else { return };
    for hierarchy in found {
        let group = hierarchy.at.join(group_name(machine, folder));
        let until = Instant::now() + EMPTY_BY;
        while group.exists() && !remove_tree(&group) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The groups of a machine that are there, for a report.
pub(super) fn left(machine: &str, folder: &Path) -> Vec<PathBuf> {
    let found = hierarchies().unwrap_or_default().into_iter();
    let groups = found.map(|hierarchy| hierarchy.at.join(group_name(machine, folder)));
    groups.filter(|group| group.exists()).collect()
}

fn remove_tree(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    fs::remove_dir(group).is_ok()
}

/// The cluster's folder has the cluster's name.
fn group_name(machine: &str, folder: &Path) -> String {
    let cluster = folder.parent().and_then(Path::file_name).unwrap_or_default();
    format!("sluice-{}-{machine}", cluster.to_string_lossy())
}

fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// proc(5): fields up to a hyphen, then type, source and options of the file system.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, system)) = line.split_once(" - ") else { continue };
        let at = mount.split(' ').nth(4).map(PathBuf::from).unwrap_or_default();
        let mut system = system.split(' ');
        let (kind, options) =
            (system.next().unwrap_or_default(), system.nth(1).unwrap_or_default());
        if !at.starts_with(HOST) || !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let named = options.split(',').any(|option| option.starts_with("name="));
        let mut options: Vec<_> = options.split(',').filter(|option| is_chosen(option)).collect();
        if named {
            options.insert(0, "none");
        }
        let options = if kind == "cgroup" { options.join(",") } else { String::new() };
        found.retain(|other| other.at != at);
        found.push(Hierarchy { at, kind: kind.to_owned(), options });
    }
    found
}

/// What chooses a hierarchy; the rest are how it is mounted.
fn is_chosen(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "nsdelegate")
        && !option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_with_what_chooses_them() {
        let text = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let row = |at: &str, kind: &str, options: &str| Hierarchy {
            at: at.into(),
            kind: kind.into(),
            options: options.into(),
        };
        assert_eq!(
            parse(text),
            [
                row("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
                row("/sys/fs/cgroup/systemd", "cgroup", "none,name=systemd"),
                row("/sys/fs/cgroup/unified", "cgroup2", ""),
            ]
        );
    }
}
