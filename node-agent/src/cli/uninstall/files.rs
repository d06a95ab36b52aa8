//! What the agent keeps in its directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::thing::Thing;
use crate::run_dir::RunDir;

/// What is mounted where, as this process sees it.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// What is to be removed.
    pub(super) things: Vec<Thing>,
    /// What stays besides, and why.
    pub(super) notes: Vec<String>,
}

/// What is there of `outside`, then all that is ours of the agent's directory, the lock last,
/// then the directory, where nothing else is in it.
///
/// # Errors
/// When the directory is there and cannot be listed.
pub(super) fn present(run_dir: &RunDir, outside: &[PathBuf]) -> io::Result<Present> {
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| !found.is_dir());
    let own = run_dir.own();
    let outside = outside.iter().filter(|path| !own.contains(path));
    let files: Vec<_> = outside.chain(&own).filter(|it| is_file(it)).cloned().collect();
    let mut present = Present::default();
    let folder = &run_dir.0;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            present.things.extend(files.into_iter().map(Thing::File));
            return Ok(present);
        }
        Err(error) => return Err(error),
    };
    let others = entries.flatten().map(|entry| entry.path()).filter(|it| !files.contains(it));
    let others: BTreeSet<_> = others
        .map(|it| it.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    present.things.extend(files.into_iter().map(Thing::File));
    let shown = folder.display();
    if !others.is_empty() {
        let others = others.into_iter().collect::<Vec<_>>().join(", ");
        present.notes.push(format!("directory {shown} stays: {others} in it is not ours"));
    } else if is_mounted(folder) {
        present.notes.push(format!("directory {shown} stays, empty: it is mounted there"));
    } else {
        present.things.push(Thing::Folder(folder.clone()));
    }
    Ok(present)
}

/// Removes a file, or a directory that is empty. What is gone is fine.
///
/// # Errors
/// As `unlink(2)` and `rmdir(2)`.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed = if is_folder { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// As the volume of a pod is: then it can be emptied, not removed (`EBUSY`).
fn is_mounted(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
    mounts.lines().filter_map(mount_point).any(|point| Path::new(&point) == folder)
}

/// The fifth word of a line; blanks in it are written as `\\040`.
fn mount_point(line: &str) -> Option<String> {
    Some(line.split(' ').nth(4)?.replace("\\040", " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir(folder.path().join("agent"));
        assert!(present(&run_dir, &[]).unwrap().things.is_empty());
        std::fs::create_dir(&run_dir.0).unwrap();
        let at = |name: &str| run_dir.0.join(name);
        for name in ["lock", "memory.json.new", "installed.json", "somebodys", "z.json"] {
            std::fs::write(at(name), "").unwrap();
        }
        let shown = |found: &Present| {
            found.things.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let found = present(&run_dir, &[at("lock"), folder.path().join("none")]).unwrap();
        assert_eq!(found.things.len(), 3, "{found:?}");
        assert!(shown(&found).ends_with("agent/lock"), "{found:?}");
        assert!(found.notes[0].contains("somebodys, z.json in it is not ours"), "{found:?}");
        for name in ["somebodys", "z.json"] {
            std::fs::remove_file(at(name)).unwrap();
        }
        let found = present(&run_dir, &[]).unwrap();
        assert!(shown(&found).contains("remove directory") && found.notes.is_empty(), "{found:?}");
    }

    #[test]
    fn mounts_are_known_by_where_they_are() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(tempfile::tempdir().unwrap().path()));
        let line = r"36 35 98:0 /mnt1 /run/our\040dir rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), "/run/our dir");
    }
}
