//! The folder on disk: read as runtimes read it, changed so that whoever reads meanwhile
//! sees the old or the new content, each of them whole.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::list::Shape;
use super::plan::{Change, Found, View};

/// Far more than any network configuration has.
const LONGEST: u64 = 1 << 20;
/// How the names of files end that are not whole yet.
pub(super) const FRESH: &str = ".sluice-new";
/// Of a new file: there may be tokens in somebody's entry.
const MODE: u32 = 0o600;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", .path.display())]
pub struct FolderError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is there. A folder that is not there is empty.
///
/// # Errors
/// [`FolderError`] when it cannot be listed. A file that cannot be read is told as such.
pub fn read(folder: &Path) -> Result<View, FolderError> {
    let mut view = View::default();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(view),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Links to folders count as files for runtimes, and fail.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if Shape::of(&name).is_none() {
            view.others.insert(name);
            continue;
        }
        match content(&entry.path()) {
            Ok(text) => drop(view.files.insert(name, Found::Text(text))),
            // Removed since it was listed.
            Err(error) if is_gone(&error, &entry.path()) => {}
            Err(error) => drop(view.files.insert(name, Found::Unusable(error.to_string()))),
        }
    }
    Ok(view)
}

/// Makes one change.
///
/// # Errors
/// [`FolderError`]; the file is then as it was.
pub fn apply(folder: &Path, change: &Change) -> Result<(), FolderError> {
    match change {
        Change::Write { name, text } => write(folder, name, text),
        Change::Remove { name } => {
            let path = folder.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("remove", &path)(error)),
                Ok(()) => sync(folder),
            }
        }
    }
}

/// Makes the folder, if nobody has made it yet.
///
/// # Errors
/// [`FolderError`].
pub(super) fn make(folder: &Path) -> Result<(), FolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(failed("create", folder))
}

/// Where the program is, if the runtime would find it.
pub(super) fn has_program(folders: &[PathBuf], name: &str) -> bool {
    let is_program = |path: PathBuf| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    folders.iter().any(|folder| is_program(folder.join(name)))
}

fn content(path: &Path) -> io::Result<String> {
    // Nobody's pipe may keep us waiting.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if found.len() > LONGEST {
        return Err(io::Error::other("it is longer than a megabyte"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn is_gone(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err()
}

/// Written beside it under a name that no runtime reads, and renamed over. Of a link, what
/// it leads to is replaced.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), FolderError> {
    let path = folder.join(name);
    let path = match std::fs::read_link(&path) {
        Ok(_) => std::fs::canonicalize(&path).map_err(failed("follow", &path))?,
        Err(_) => path,
    };
    let folder = path.parent().unwrap_or(folder);
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{file_name}{FRESH}"));
    let written = fill(&fresh, &path, text).map_err(failed("write", &fresh));
    let written =
        written.and_then(|()| std::fs::rename(&fresh, &path).map_err(failed("replace", &path)));
    if written.is_err() {
        // The error is told; what is left of the attempt has a name that nobody reads.
        let _ = std::fs::remove_file(&fresh);
    }
    written?;
    sync(folder)
}

fn fill(fresh: &Path, old: &Path, text: &str) -> io::Result<()> {
    // A new file, whatever a life that was killed has left there.
    match std::fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(fresh)?;
    if let Ok(old) = std::fs::metadata(old) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(folder: &Path) -> Result<(), FolderError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("make durable", folder))
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError { step, path: path.to_owned(), source }
}
