//! The plugin's program in the runtime's folder.
//!
//! ```text
//! source ─copy─► .sluice-cni.new ─0755, fsync─► asked for its VERSION ─rename─► sluice-cni
//! ```
//!
//! The runtime may execute it at any moment. A rename alone is not enough for that: what
//! anybody has open for writing cannot be executed, and every process that we start at that
//! moment inherits our open file until it executes its own program. So the copy is executed
//! first: when that works, nobody writes to it, and nobody will. It also shows that the copy
//! is whole and of this machine's kind.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout_at};

/// What the program is called, in the folder and in conflists.
pub const NAME: &str = "sluice-cni";
/// A name that no conflist has. An agent that was killed may have left one.
const FRESH: &str = ".sluice-cni.new";
const MODE: u32 = 0o755;
/// How long the copy may take to answer, and whoever has it open to let go of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to execute what somebody still has open.
const PAUSE: Duration = Duration::from_millis(5);

/// Why the program is not as it should be; what was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// A file operation.
    #[error("{step} {}: {source}", .path.display())]
    File {
        /// What was attempted.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It does not answer as a plugin does.
    #[error("the copy of {} does not answer as a plugin: {found}", .source_path.display())]
    NoPlugin {
        /// What was copied.
        source_path: PathBuf,
        /// What it did instead.
        found: String,
    },
    /// It does not answer at all.
    #[error("the copy of {} did not answer within {PATIENCE:?}", .source_path.display())]
    Silent {
        /// What was copied.
        source_path: PathBuf,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was there already.
    Before,
    /// It is there now.
    Now,
}

/// Puts the program at `source` into `folder`, unless the same is there. Who executes it
/// meanwhile gets the old one or the new one, each of them whole.
///
/// # Errors
/// Any [`BinaryError`].
pub async fn place(source: &Path, folder: &Path) -> Result<Placed, BinaryError> {
    let target = folder.join(NAME);
    let wanted = fs::read(source).await.map_err(failed("read the plugin", source))?;
    if is_in_place(&target, &wanted).await {
        return Ok(Placed::Before);
    }
    let fresh = folder.join(FRESH);
    let placed = replace(source, &wanted, &fresh, &target).await;
    if placed.is_err() {
        // The error is told; what is left of the attempt has a name that nobody calls.
        let _ = fs::remove_file(&fresh).await;
    }
    placed.map(|()| Placed::Now)
}

/// Where something of ours is in `folder`: the program, or what an attempt to place it has
/// left.
#[must_use]
pub fn present(folder: &Path) -> Vec<PathBuf> {
    let paths = [NAME, FRESH].map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// Removes one of the files that [`present`] names. One that is gone is fine.
///
/// # Errors
/// [`BinaryError::File`].
pub fn remove(path: &Path) -> Result<(), BinaryError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// With content and mode. What cannot be read is not.
async fn is_in_place(target: &Path, wanted: &[u8]) -> bool {
    let mode = fs::metadata(target).await.map(|found| found.permissions().mode() & 0o7777);
    mode.is_ok_and(|mode| mode == MODE) && fs::read(target).await.is_ok_and(|it| it == wanted)
}

async fn replace(
    source: &Path,
    wanted: &[u8],
    fresh: &Path,
    target: &Path,
) -> Result<(), BinaryError> {
    write(fresh, wanted).await.map_err(failed("write", fresh))?;
    ask(fresh, source).await?;
    fs::rename(fresh, target).await.map_err(failed("replace", target))?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let synced = async { fs::File::open(folder).await?.sync_all().await };
    synced.await.map_err(failed("make durable", folder))
}

async fn write(fresh: &Path, content: &[u8]) -> io::Result<()> {
    // A new file, whatever is there: somebody may have linked it to another.
    match fs::remove_file(fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(fresh).await?;
    file.write_all(content).await?;
    file.flush().await?;
    // Whatever our umask is.
    file.set_permissions(std::fs::Permissions::from_mode(MODE)).await?;
    file.sync_all().await
}

/// The reply to VERSION.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    supported_versions: Vec<String>,
}

/// Executes the copy, as a runtime does to learn which versions it speaks.
async fn ask(fresh: &Path, source: &Path) -> Result<(), BinaryError> {
    let deadline = Instant::now() + PATIENCE;
    let source_path = source.to_owned();
    loop {
        match timeout_at(deadline, version(fresh)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                sleep(PAUSE).await;
            }
            Ok(Err(error)) => return Err(failed("execute", fresh)(error)),
            Ok(Ok(output)) => {
                let versions = serde_json::from_slice::<Versions>(&output.stdout);
                let speaks = versions.is_ok_and(|it| !it.supported_versions.is_empty());
                if speaks && output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stdout);
                let found = format!("{}, and it said {:?}", output.status, said.trim());
                return Err(BinaryError::NoPlugin { source_path, found });
            }
            Err(_) => return Err(BinaryError::Silent { source_path }),
        }
    }
}

async fn version(program: &Path) -> io::Result<std::process::Output> {
    #[expect(clippy::disallowed_methods, reason = "this file owns starting the plugin")]
    let mut command = tokio::process::Command::new(program);
    command.env_clear().env("CNI_COMMAND", "VERSION").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who answers without reading has its answer judged.
        let _ = stdin.write_all(br#"{"cniVersion":"1.0.0"}"#).await;
    }
    child.wait_with_output().await
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BinaryError + 'a {
    move |source| BinaryError::File { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
