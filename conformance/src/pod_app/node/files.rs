//! Files of the node.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::root::Root;

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

pub(super) fn read(root: &Root, path: &Path) -> anyhow::Result<Content> {
    let bytes = match std::fs::read(root.to_read(path)?) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::default()),
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

pub(super) fn lists(root: &Root, folder: &Path) -> anyhow::Result<Lists> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(root.to_read(folder)?);
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

/// Nothing is removed when one of the paths may not be changed.
pub(super) fn remove(root: &Root, paths: &[PathBuf]) -> anyhow::Result<()> {
    let found: Vec<_> =
        paths.iter().map(|path| root.to_change(path)).collect::<anyhow::Result<_>>()?;
    found.iter().try_for_each(|path| clear(path))
}

/// A folder stays, since it may be mounted elsewhere; what is in it goes.
fn clear(path: &Path) -> anyhow::Result<()> {
    let what = || format!("remove {}", path.display());
    if !path.is_dir() {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(what),
            _ => Ok(()),
        };
    }
    for entry in std::fs::read_dir(path).with_context(what)? {
        let entry = entry.with_context(what)?.path();
        let gone = if entry.is_dir() {
            std::fs::remove_dir_all(&entry)
        } else {
            std::fs::remove_file(&entry)
        };
        gone.with_context(|| format!("remove {}", entry.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_when_one_path_may_not_be() {
        let folder = std::env::temp_dir().join(format!("remove-{}", std::process::id()));
        let kept = folder.join("var/run/sluice");
        std::fs::create_dir_all(kept.join("agent/more")).unwrap();
        std::fs::write(kept.join("agent/more/file"), "text").unwrap();
        std::fs::write(kept.join("list"), "text").unwrap();
        let root = Root::at(&folder);
        let all =
            |last: &str| ["/var/run/sluice/list", "/var/run/sluice/agent", last].map(PathBuf::from);
        for wrong in ["", "/", "/var", "/var/run", "var/run/sluice", "/var/run/sluice/.."] {
            let error = remove(&root, &all(wrong)).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{wrong:?}: {error}");
            assert!(kept.join("list").exists() && kept.join("agent/more/file").exists());
        }
        remove(&root, &all("/var/run/sluice/never-there")).unwrap();
        assert!(!kept.join("list").exists());
        assert_eq!(std::fs::read_dir(kept.join("agent")).unwrap().count(), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_same_bytes_are_the_same_content() {
        assert_eq!(Content::of(b"{}"), Content::of(b"{}"));
        assert_ne!(Content::of(b"{}").digest, Content::of(b"{ }").digest);
        assert!(Content::of(&vec![b'x'; TEXT + 1]).text.is_empty());
    }
}
