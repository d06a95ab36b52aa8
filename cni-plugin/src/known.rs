//! The list of pods outside the mesh that the agent leaves for the time in which it does not
//! answer (`whenAgentAbsent: allow-known`). Believed only from root, of this boot, and for a
//! bounded time: labels may change while nobody watches.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use plugin_api::{KNOWN_FILE, KNOWN_VERSION, KnownOutside, MAX_KNOWN};

use crate::cni_args::Pod;

/// How long the list is believed after the agent last stood by it.
const BELIEVED: Duration = Duration::from_secs(3600);

/// What keeps a pod from starting without the agent.
#[derive(Debug, thiserror::Error)]
pub enum NotKnown {
    /// There is no list, or no way to it.
    #[error("no list of pods outside the mesh: {}: {source}", .path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else than root could have written it.
    #[error("{} is not root's alone: not believed", .0.display())]
    NotRoots(PathBuf),
    /// It is no list of ours.
    #[error("the list of pods outside the mesh, {}, is {reason}: not believed", .path.display())]
    Other {
        /// Where it is.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The pod is not in it.
    #[error("the pod is not known to be outside the mesh")]
    NotListed,
    /// Names return, UIDs do not.
    #[error("the runtime tells no UID, without which no pod is known")]
    NoUid,
}

/// Whether the pod is in the list: how long ago the agent last stood by it.
///
/// # Errors
/// [`NotKnown`].
pub fn age_if_outside(socket: &Path, pod: &Pod) -> Result<Duration, NotKnown> {
    let uid = pod.uid.as_deref().ok_or(NotKnown::NoUid)?;
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let path = folder.join(KNOWN_FILE);
    let (list, age) = read(folder, &path)?;
    let other = |reason: String| NotKnown::Other { path: path.clone(), reason };
    let list: KnownOutside =
        serde_json::from_slice(&list).map_err(|error| other(format!("no list ({error})")))?;
    if list.version != KNOWN_VERSION {
        return Err(other(format!("of version {}", list.version)));
    }
    let boot = Path::new("/proc/sys/kernel/random/boot_id");
    let boot_now = std::fs::read_to_string(boot).map_err(failed(boot))?;
    if list.boot != boot_now.trim() {
        return Err(other("of another boot of this node".to_owned()));
    }
    let age = age.filter(|age| *age <= BELIEVED).ok_or_else(|| {
        let age = age.map_or("from the future".to_owned(), |age| format!("{age:.0?} old"));
        other(age)
    })?;
    let same = |uid_: &str, namespace: &str, name: &str| {
        (uid_, namespace, name) == (uid, pod.namespace.as_str(), pod.name.as_str())
    };
    let listed = list.pods.iter().any(|it| same(&it.uid, &it.namespace, &it.name));
    if listed { Ok(age) } else { Err(NotKnown::NotListed) }
}

/// The file's bytes, and its age; `None` where that is negative.
fn read(folder: &Path, path: &Path) -> Result<(Vec<u8>, Option<Duration>), NotKnown> {
    // Non-blocking, because a pipe of this name would wait for a writer.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file: File = file.map_err(failed(path))?;
    let (facts, around) = (file.metadata(), std::fs::metadata(folder));
    let (facts, around) = (facts.map_err(failed(path))?, around.map_err(failed(folder))?);
    // Who writes to the folder replaces the file.
    if !facts.is_file() || !is_roots(&facts, 0o077) || !is_roots(&around, 0o022) {
        return Err(NotKnown::NotRoots(path.to_owned()));
    }
    let mut bytes = Vec::new();
    let most = MAX_KNOWN as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed(path))?;
    if bytes.len() > MAX_KNOWN {
        return Err(failed(path)(io::ErrorKind::FileTooLarge.into()));
    }
    let written = facts.modified().map_err(failed(path))?;
    Ok((bytes, SystemTime::now().duration_since(written).ok()))
}

fn is_roots(facts: &Metadata, others: u32) -> bool {
    facts.uid() == 0 && facts.mode() & others == 0
}

fn failed(path: &Path) -> impl Fn(io::Error) -> NotKnown {
    move |source| NotKnown::Read { path: path.to_owned(), source }
}
