//! Files of the run directory are replaced, never written over: who reads one sees the whole
//! of it as it was, or as it is.

use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;

/// What a file has to outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlives {
    /// The process, however it ends.
    Process,
    /// The machine as well, when its power fails.
    Machine,
}

/// What a file that is not whole yet ends with.
pub const FRESH: &str = "json.new";

/// Puts a file of root alone in the place of `path`.
///
/// # Errors
/// The system's answer; what was there is as it was.
pub async fn replace_file(path: &Path, bytes: &[u8], outlives: Outlives) -> io::Result<()> {
    let fresh = path.with_extension(FRESH);
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh).await?;
    file.write_all(bytes).await?;
    // Only this tells whether it could be written: a full disk is no reason to lose the old one.
    file.flush().await?;
    if outlives == Outlives::Machine {
        file.sync_all().await?;
    }
    tokio::fs::rename(&fresh, path).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_replaced_whole_by_one_of_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        for outlives in [Outlives::Process, Outlives::Machine] {
            for text in ["much longer than what follows", "short"] {
                replace_file(&path, text.as_bytes(), outlives).await.unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    }

    #[tokio::test]
    async fn what_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        replace_file(&path, b"before", Outlives::Process).await.unwrap();
        std::fs::create_dir(path.with_extension("json.new")).unwrap();
        replace_file(&path, b"after", Outlives::Process).await.unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
    }
}
