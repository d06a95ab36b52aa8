//! What the agent keeps in its directory.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::thing::Thing;
use crate::run_dir::RunDir;

/// Everything of the agent's directory, the lock last, then the directory; and the socket
/// at which ztunnel finds the agent. Folders in it are nobody's that we know, and stay.
///
/// # Errors
/// When the directory is there and cannot be listed.
pub(super) fn present(run_dir: &RunDir, zds_socket: &Path) -> io::Result<Vec<Thing>> {
    let is_socket =
        |path: &Path| path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let zds = is_socket(zds_socket).then(|| zds_socket.to_owned());
    let mut files: Vec<PathBuf> = Vec::new();
    let entries = match std::fs::read_dir(&run_dir.0) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(zds.into_iter().map(Thing::File).collect());
        }
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files.push(entry.path());
        }
    }
    let (lock, zds) = (run_dir.lock(), zds.filter(|zds| !files.contains(zds)));
    files.sort_by_key(|path| (*path == lock, path.clone()));
    let things = zds.into_iter().chain(files).map(Thing::File);
    Ok(things.chain([Thing::Folder(run_dir.0.clone())]).collect())
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
