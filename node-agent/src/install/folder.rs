//! The folder on disk: read as runtimes read it, changed so that whoever reads meanwhile
//! sees the old or the new content, each of them whole.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::list::Shape;
use super::plan::{Change, Found, View};
use super::resolve::resolve_seen;

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

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is made.
    Made,
    /// Somebody has written the file since the change was decided: it is theirs, as they wrote
    /// it, and has to be looked at again.
    Overtaken,
}

/// A folder of network configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    path: PathBuf,
}

impl Folder {
    /// Links are followed as they lead below `root`, the node's root directory as it is seen
    /// from here; so is `path`.
    #[must_use]
    pub fn new(root: &Path, path: &Path) -> Self {
        Self { root: root.to_owned(), path: path.to_owned() }
    }

    /// As it is seen from here; it may be a link.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there. A folder that is not there is empty.
    ///
    /// # Errors
    /// [`FolderError`] when it cannot be listed. A file that cannot be read is told as such.
    pub fn read(&self) -> Result<View, FolderError> {
        let (mut view, folder) = (View::default(), self.place()?);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(view),
            Err(error) => return Err(failed("list", &folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links to folders count as files for runtimes, and fail.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if Shape::of(&name).is_none() {
                view.others.insert(name);
                continue;
            }
            match self.content(&entry.path()) {
                Ok(text) => drop(view.files.insert(name, Found::Text(text))),
                // Removed since it was listed.
                Err(error) if is_gone(&error, &entry.path()) => {}
                Err(error) => drop(view.files.insert(name, self.flaw(&error))),
            }
        }
        Ok(view)
    }

    /// Makes one change.
    ///
    /// # Errors
    /// [`FolderError`]; the file is then as it was.
    pub fn apply(&self, change: &Change) -> Result<Applied, FolderError> {
        let path = self.place()?.join(change.name());
        match change {
            Change::Write { text, of, .. } => self.write(&path, text, of.as_deref()),
            Change::Remove { of, .. } => {
                if self.is_overtaken(&path, of.as_deref()) {
                    return Ok(Applied::Overtaken);
                }
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Applied::Made),
                    Err(error) => Err(failed("remove", &path)(error)),
                    Ok(()) => sync(path.parent().unwrap_or(&path)).map(|()| Applied::Made),
                }
            }
        }
    }

    /// Makes the folder, if nobody has made it yet.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn make(&self) -> Result<(), FolderError> {
        let folder = self.place()?;
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.map_err(failed("create", &folder))
    }

    /// Whether it may be there, and we not see it: an agent in a container sees those of the node's
    /// folders that it was given.
    #[must_use]
    pub fn may_be_hidden(&self) -> bool {
        let is_there = self.place().is_ok_and(|place| place.is_dir());
        !is_there && self.root != Path::new("/")
    }

    /// Where it is now.
    pub(super) fn place(&self) -> Result<PathBuf, FolderError> {
        resolve_seen(&self.root, &self.path).map_err(failed("follow", &self.path))
    }

    fn content(&self, path: &Path) -> io::Result<String> {
        // Nobody's pipe may keep us waiting.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = options.open(resolve_seen(&self.root, path)?)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        if found.len() > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is longer than a megabyte",
            ));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Written beside it under a name that no runtime reads, and renamed over. Of a link, what
    /// it leads to is replaced.
    fn write(&self, path: &Path, text: &str, of: Option<&str>) -> Result<Applied, FolderError> {
        let path = resolve_seen(&self.root, path).map_err(failed("follow", path))?;
        let folder = path.parent().unwrap_or(&self.path);
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = folder.join(format!(".{file_name}{FRESH}"));
        let written = fill(&fresh, &path, text).map_err(failed("write", &fresh));
        let replaced = written.and_then(|()| {
            // To be asked as late as can be.
            if self.is_overtaken(&path, of) {
                return Ok(Applied::Overtaken);
            }
            std::fs::rename(&fresh, &path).map_err(failed("replace", &path))?;
            Ok(Applied::Made)
        });
        if !matches!(replaced, Ok(Applied::Made)) {
            // What is told is the error; what is left has a name that nobody reads.
            let _ = std::fs::remove_file(&fresh);
            return replaced;
        }
        sync(folder).map(|()| Applied::Made)
    }

    /// Whether everybody fails at the file, or perhaps only we. An agent in a container sees those
    /// of the node's folders that it was given: what leads elsewhere may well be there.
    fn flaw(&self, error: &io::Error) -> Found {
        let nowhere = [Errno::ENOENT, Errno::ENOTDIR];
        let everybody = [Errno::ELOOP, Errno::ENXIO];
        let sees_all = self.root == Path::new("/");
        let is_ours = match error.raw_os_error().map(Errno::from_raw) {
            Some(code) if nowhere.contains(&code) => !sees_all,
            Some(code) => !everybody.contains(&code),
            None => error.kind() == io::ErrorKind::FileTooLarge,
        };
        if is_ours { Found::Unread(error.to_string()) } else { Found::Unusable(error.to_string()) }
    }

    fn is_overtaken(&self, path: &Path, of: Option<&str>) -> bool {
        of.is_some_and(|of| !self.content(path).is_ok_and(|now| now == of))
    }
}

fn is_gone(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err()
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

#[cfg(test)]
mod tests;
