//! Files of the node.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Where the node's root is in the pod.
const ROOT: &str = "/host";
/// Longer files are programs, whose text nobody wants.
const TEXT: usize = 64 << 10;
/// What the CNI library reads.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// What a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Whether it is there at all.
    pub there: bool,
    /// Its length.
    pub bytes: usize,
    /// The same for the same bytes.
    pub digest: u64,
    /// Its text, where it is short.
    pub text: String,
}

/// The runtime's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lists {
    /// Names and texts, by name: the first one counts.
    pub files: Vec<(String, String)>,
}

/// A path of the node as the pod sees it.
pub(super) fn here(path: &Path) -> PathBuf {
    Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

pub(super) fn read(path: &Path) -> anyhow::Result<Content> {
    let bytes = match std::fs::read(here(path)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    Ok(Content::of(&bytes))
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let text = if bytes.len() <= TEXT {
            String::from_utf8_lossy(bytes).into_owned()
        } else {
            String::new()
        };
        Self { there: true, bytes: bytes.len(), digest: hasher.finish(), text }
    }
}

pub(super) fn lists(folder: &Path) -> anyhow::Result<Lists> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(here(folder));
    for entry in entries.with_context(|| format!("look into {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known =
            path.extension().is_some_and(|one| EXTENSIONS.iter().any(|known| one == *known));
        if known && let Ok(text) = std::fs::read_to_string(&path) {
            files.push((name, text));
        }
    }
    files.sort();
    Ok(Lists { files })
}

/// A folder stays, since it may be mounted elsewhere; what is in it goes.
pub(super) fn remove(paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths {
        let found = here(path);
        if !found.is_dir() {
            match std::fs::remove_file(&found) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => continue,
            }
        }
        for entry in std::fs::read_dir(&found)? {
            let entry = entry?.path();
            let gone = if entry.is_dir() {
                std::fs::remove_dir_all(&entry)
            } else {
                std::fs::remove_file(&entry)
            };
            gone.with_context(|| format!("remove {}", entry.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_files_are_elsewhere_in_the_pod() {
        assert_eq!(here(Path::new("/etc/cni")), Path::new("/host/etc/cni"));
        assert_eq!(here(Path::new("etc")), Path::new("/host/etc"));
    }

    #[test]
    fn the_same_bytes_are_the_same_content() {
        assert_eq!(Content::of(b"{}"), Content::of(b"{}"));
        assert_ne!(Content::of(b"{}").digest, Content::of(b"{ }").digest);
        assert!(Content::of(&vec![b'x'; TEXT + 1]).text.is_empty());
    }
}
