//! Where the root is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::root::{Root, RootError};
use crate::kube::{Own, OwnError, Stored};
use crate::settings::{CaStore, ObjectName};

/// Key and certificate in one file, so that there is never one without the other.
const FILE: &str = "root.pem";
/// How long an API that does not answer is waited for, and how often it is asked. Then the
/// process ends, and whoever looks after it sees that.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(2);

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("the root {path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("the root {path} cannot be written: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What the file holds is no usable root.
    #[error(
        "the root {path} cannot be used: {source}; put back a good copy, or remove it to get a \
         new root that all proxies must be given"
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: RootError,
    },
    /// The Secret cannot be used.
    #[error("the root: {0}")]
    Secret(#[from] OwnError),
    /// What the Secret holds is no usable root.
    #[error(
        "the root in secret {name} cannot be used: {source}; put back a good copy, or remove it \
         to get a new root"
    )]
    SecretContent {
        /// Which one.
        name: ObjectName,
        /// What is wrong with it.
        source: RootError,
    },
    /// No root could be made.
    #[error("no root can be made: {0}")]
    Generate(#[source] RootError),
}

/// Finds the root, or makes it at the first start.
pub(crate) async fn open(
    store: &CaStore,
    own: &Own,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Root, StoreError> {
    let generate = || Root::generate(trust_domain, now).map_err(StoreError::Generate);
    match store {
        CaStore::Memory => generate(),
        CaStore::Folder(folder) => in_folder(folder, generate, now),
        CaStore::Secret(name) => in_secret(own, name, &generate()?, now).await,
    }
}

/// `fresh` is used when there is none yet. Of several that start at once one is first, and
/// the others take what it has stored.
async fn in_secret(
    own: &Own,
    name: &ObjectName,
    fresh: &Root,
    now: OffsetDateTime,
) -> Result<Root, StoreError> {
    let fresh = fresh.to_pem();
    let asked = Instant::now();
    let text = loop {
        match found_or_stored(own, name, &fresh).await {
            Ok(text) => break text,
            Err(error) if error.may_pass() && asked.elapsed() < PATIENCE => {
                tracing::warn!(%error, "the root is waited for");
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    Root::from_pem(&text, now)
        .map_err(|source| StoreError::SecretContent { name: name.clone(), source })
}

async fn found_or_stored(own: &Own, name: &ObjectName, fresh: &str) -> Result<String, OwnError> {
    loop {
        if let Some(text) = own.root(name).await? {
            return Ok(text);
        }
        if own.store(name, fresh).await? == Stored::Ours {
            tracing::info!(secret = %name, "a new root was made");
            return Ok(fresh.to_owned());
        }
    }
}

fn in_folder(
    folder: &Path,
    generate: impl Fn() -> Result<Root, StoreError>,
    now: OffsetDateTime,
) -> Result<Root, StoreError> {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            Root::from_pem(&text, now).map_err(|source| StoreError::Content { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let root = generate()?;
            write(folder, &path, &root.to_pem())
                .map_err(|source| StoreError::Write { path: path.clone(), source })?;
            tracing::info!(path = %path.display(), "a new root was made");
            Ok(root)
        }
        Err(source) => Err(StoreError::Read { path, source }),
    }
}

/// Writes beside the file and then links it into place: it is there whole or not at all,
/// readable by nobody else at any time, and a root that somebody else has put there in
/// the same moment is not overwritten.
fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{FILE}.{}", std::process::id()));
    let written = write_new(&beside, text).and_then(|()| std::fs::hard_link(&beside, path));
    let removed = std::fs::remove_file(&beside);
    written.and(removed)?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    #[test]
    fn the_second_start_finds_the_root_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        let generate = || Ok(Root::generate("cluster.local", now()).unwrap());
        let first = in_folder(&ca, generate, now()).unwrap();
        let second = in_folder(&ca, generate, now()).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let mode = std::fs::metadata(folder.path().join("ca/root.pem")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let files = std::fs::read_dir(folder.path().join("ca")).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_root_that_cannot_be_used_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "nonsense").unwrap();
        let generate = || Ok(Root::generate("cluster.local", now()).unwrap());
        let error = in_folder(folder.path(), generate, now()).unwrap_err();
        assert!(error.to_string().contains("root.pem cannot be used"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
