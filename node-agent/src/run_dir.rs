//! The run directory and its lock: one agent acts on a node, others wait. Who takes the agent
//! off the node does not wait: an agent would undo what it does.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

use crate::pod_netns::DAMAGED;
use crate::replace_file::FRESH;

/// How often a waiting agent looks.
const LOOK: Duration = Duration::from_millis(500);

/// Files of the run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    /// Where the plugin connects.
    #[must_use]
    pub fn plugin_socket(&self) -> PathBuf {
        self.0.join("plugin.sock")
    }

    /// What the plugin told about pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.0.join("pods.json")
    }

    /// What one life of the agent leaves to the next about pods' options.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.0.join("memory.json")
    }

    /// Pods that the plugin may let start while it reaches no agent.
    #[must_use]
    pub fn known_outside(&self) -> PathBuf {
        self.0.join(plugin_api::KNOWN_FILE)
    }

    /// Where the plugin was installed.
    #[must_use]
    pub fn installed(&self) -> PathBuf {
        self.0.join("installed.json")
    }

    /// All of these that an agent ever makes, the lock last: nothing else in the directory is
    /// ours. What is replaced is written beside it first.
    #[must_use]
    pub fn own(&self) -> Vec<PathBuf> {
        let written = [self.pods(), self.memory(), self.known_outside(), self.installed()];
        let fresh = written.each_ref().map(|file| file.with_extension(FRESH));
        // Put aside because it could not be read.
        let damaged = self.pods().with_extension(DAMAGED);
        let files = written.into_iter().chain(fresh).chain([damaged]);
        [self.plugin_socket()].into_iter().chain(files).chain([self.lock()]).collect()
    }

    /// Held by the one agent of the node that acts.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", .path.display())]
pub struct RunDirError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Proof that this is the one agent that acts. Ends with the process at the latest.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Makes the directory, for root alone, and waits until no other agent holds its lock.
/// `None`: the agent was stopped before.
///
/// # Errors
/// [`RunDirError`].
pub async fn take(run_dir: &RunDir, stop: &CancellationToken) -> Result<Option<Lock>, RunDirError> {
    let mut told = false;
    loop {
        // Opened each time: an uninstall removes the file that it holds.
        if let Some(lock) = try_take(run_dir)? {
            return Ok(Some(lock));
        }
        if !told {
            told = true;
            tracing::warn!(
                lock = %run_dir.lock().display(),
                "another node agent acts on this node: waiting for it to end, touching nothing"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Takes the lock, if nobody holds it: `None` while an agent acts on this node. The directory
/// is made if need be.
///
/// # Errors
/// [`RunDirError`].
pub fn try_take(run_dir: &RunDir) -> Result<Option<Lock>, RunDirError> {
    make(&run_dir.0)?;
    let failed = |step| move |source| RunDirError { step, path: run_dir.lock(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    lock_now(options.open(run_dir.lock()).map_err(failed("open the lock"))?, run_dir)
}

/// Whether an agent acts on this node. Changes nothing, and makes nothing.
///
/// # Errors
/// [`RunDirError`].
pub fn is_taken(run_dir: &RunDir) -> Result<bool, RunDirError> {
    match File::open(run_dir.lock()) {
        Ok(file) => Ok(lock_now(file, run_dir)?.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RunDirError { step: "open the lock", path: run_dir.lock(), source }),
    }
}

fn lock_now(file: File, run_dir: &RunDir) -> Result<Option<Lock>, RunDirError> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) if is_at(&file, &run_dir.lock()) => Ok(Some(Lock { _file: file })),
        // Who holds a file that was removed keeps nobody out.
        Ok(_) | Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => {
            let (step, source) = ("take the lock", errno.into());
            Err(RunDirError { step, path: run_dir.lock(), source })
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

/// Who holds the lock, in words, as far as `processes`, a `/proc`, tells.
#[must_use]
pub fn holder(run_dir: &RunDir, processes: &Path) -> Option<String> {
    let inode = std::fs::metadata(run_dir.lock()).ok()?.ino();
    let locks = std::fs::read_to_string(processes.join("locks")).ok()?;
    let pid = locks.lines().find_map(|line| holder_in(line, inode))?;
    let comm = std::fs::read_to_string(processes.join(&pid).join("comm")).ok()?;
    Some(format!("{}, process {pid}", comm.trim()))
}

/// `1: FLOCK  ADVISORY  WRITE 4711 00:17:26 0 EOF`, where 26 is the inode.
fn holder_in(line: &str, inode: u64) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
    let of_ours = file.rsplit(':').next()?.parse() == Ok(inode);
    of_ours.then(|| pid.to_owned())
}

fn make(folder: &Path) -> Result<(), RunDirError> {
    let failed = |step| move |source| RunDirError { step, path: folder.to_owned(), source };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(failed("create"))?;
    let owner_only = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(folder, owner_only).map_err(failed("restrict"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_agent_waits_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir(folder.path().join("agent"));
        let stop = CancellationToken::new();
        let first = take(&run_dir, &stop).await.unwrap().unwrap();
        let mode = std::fs::metadata(&run_dir.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        let second = take(&run_dir, &stop);
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        assert!(early.is_err(), "two agents act");
        drop(first);
        let second = tokio::time::timeout(Duration::from_secs(10), second).await;
        assert!(second.unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_waiting_agent_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir(folder.path().to_owned());
        let stop = CancellationToken::new();
        let _first = take(&run_dir, &stop).await.unwrap();
        stop.cancel();
        assert!(take(&run_dir, &stop).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_waits_for_a_lock_that_is_removed_gets_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir(folder.path().to_owned());
        let first = take(&run_dir, &CancellationToken::new()).await.unwrap();
        let waiting = tokio::spawn({
            let run_dir = run_dir.clone();
            async move { take(&run_dir, &CancellationToken::new()).await }
        });
        tokio::task::yield_now().await;
        std::fs::remove_file(run_dir.lock()).unwrap();
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert!(second.is_some() && try_take(&run_dir).unwrap().is_none(), "one agent acts");
    }

    #[tokio::test]
    async fn who_does_not_wait_is_told_whether_an_agent_acts_and_which() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir(folder.path().join("agent"));
        assert!(!is_taken(&run_dir).unwrap());
        assert!(!run_dir.0.exists(), "a look makes nothing");
        let agent = take(&run_dir, &CancellationToken::new()).await.unwrap();
        assert!(is_taken(&run_dir).unwrap());
        assert!(try_take(&run_dir).unwrap().is_none());
        let holder = holder(&run_dir, Path::new("/proc")).unwrap();
        assert!(holder.ends_with(&format!(", process {}", std::process::id())), "{holder}");
        drop(agent);
        assert!(!is_taken(&run_dir).unwrap());
        assert!(try_take(&run_dir).unwrap().is_some());
    }
}
