//! What the agent keeps in its directory.

use std::collections::BTreeSet;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use super::thing::Thing;
use crate::run_dir::RunDir;

/// What is there of `outside`, then everything of the agent's directory, the lock last, then
/// the directory. Folders in it are nobody's that we know, and stay.
///
/// # Errors
/// When the directory is there and cannot be listed.
pub(super) fn present(run_dir: &RunDir, outside: &[PathBuf]) -> io::Result<Vec<Thing>> {
    let is_file = |path: &&PathBuf| path.symlink_metadata().is_ok_and(|found| !found.is_dir());
    let outside = outside.iter().filter(is_file).cloned();
    let entries = match std::fs::read_dir(&run_dir.0) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(outside.map(Thing::File).collect());
        }
        Err(error) => return Err(error),
    };
    let is_ours = |kind: io::Result<FileType>| kind.is_ok_and(|kind| !kind.is_dir());
    let within = entries.flatten().filter(|entry| is_ours(entry.file_type()));
    let within: BTreeSet<PathBuf> = within.map(|entry| entry.path()).collect();
    let outside = outside.filter(|path| !within.contains(path)).collect::<Vec<_>>();
    let (lock, before): (Vec<_>, Vec<_>) =
        within.into_iter().partition(|path| *path == run_dir.lock());
    let files = outside.into_iter().chain(before).chain(lock).map(Thing::File);
    Ok(files.chain([Thing::Folder(run_dir.0.clone())]).collect())
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
