//! Takes the plugin out of the runtime's configuration: our own list is removed, and where our
//! entry was appended to somebody's list, it is cut out of the text. All other bytes stay as
//! they are, so that no number, key or order of theirs is changed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::binary::NAME;
use super::list::{List, Shape};

/// What runtimes read.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// Lists within lists: Multus has one level.
const DEEPEST: usize = 16;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", .path.display())]
pub struct UndoError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// One file that names our plugin, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What becomes of it.
    pub becomes: Becomes,
}

/// What becomes of a file that names our plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// It is ours as a whole.
    Nothing,
    /// This text: the same without our entries.
    Text(String),
}

/// What has to change in `folder` so that nothing there names our plugin. The file `own` is
/// ours as a whole, whatever is in it. A folder that is not there needs no change.
///
/// # Errors
/// For each file that cannot be read, or names us and cannot be understood, a [`UndoError`];
/// the others are told all the same.
pub fn changes(folder: &Path, own: &str) -> (Vec<Change>, Vec<UndoError>) {
    let (mut changes, mut errors) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (changes, errors),
        Err(error) => return (changes, vec![failed("list", folder)(error)]),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    // As runtimes read them, so that what is told is told in an order.
    paths.sort();
    for path in paths {
        match change(&path, own) {
            Ok(becomes) => changes.extend(becomes.map(|becomes| Change { path, becomes })),
            Err(error) => errors.push(error),
        }
    }
    (changes, errors)
}

impl Change {
    /// Makes it so, in one step for whoever reads meanwhile.
    ///
    /// # Errors
    /// [`UndoError`]; the file is then as it was.
    pub fn apply(&self) -> Result<(), UndoError> {
        match &self.becomes {
            Becomes::Nothing => match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", &self.path)(error))
                }
                _ => Ok(()),
            },
            Becomes::Text(text) => replace(&self.path, text).map_err(failed("replace", &self.path)),
        }
    }
}

fn change(path: &Path, own: &str) -> Result<Option<Becomes>, UndoError> {
    if path.file_name().is_some_and(|name| name == own) {
        return Ok(Some(Becomes::Nothing));
    }
    let is_read = path.extension().is_some_and(|it| EXTENSIONS.iter().any(|known| it == *known));
    if !is_read || !path.is_file() {
        return Ok(None);
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) if text.contains(NAME) => text,
        Ok(_) => return Ok(None),
        // Somebody else's, gone meanwhile or not even text.
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed("read", path)(error)),
    };
    // Made of somebody's single plugin, under a name that depends on that one's.
    if List::parse(Shape::List, &text).is_ok_and(|list| list.made_of().is_some()) {
        return Ok(Some(Becomes::Nothing));
    }
    without(&text).map_err(|error| failed("understand", path)(error.into()))
}

/// The text without our entries; `None` when there are none.
fn without(text: &str) -> serde_json::Result<Option<Becomes>> {
    let whole: &RawValue = serde_json::from_str(text)?;
    let mut cuts = Cuts { text, ranges: Vec::new() };
    let emptied = cuts.object(whole, DEEPEST)?;
    if emptied == Emptied::Wholly {
        return Ok(Some(Becomes::Nothing));
    }
    Ok((!cuts.ranges.is_empty()).then(|| Becomes::Text(cuts.apply())))
}

/// Whether a list is ours as a whole: by its mark, or because it has no other plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emptied {
    Wholly,
    Not,
}

struct Cuts<'a> {
    text: &'a str,
    ranges: Vec<Range<usize>>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    type_: String,
    /// Marks the entry in a list that was made of somebody's, and is ours as a whole.
    #[serde(rename = "listOf")]
    list_of: Option<IgnoredAny>,
}

impl<'a> Cuts<'a> {
    fn object(&mut self, raw: &'a RawValue, depth: usize) -> serde_json::Result<Emptied> {
        let mut emptied = Emptied::Not;
        if depth == 0 {
            return Ok(emptied);
        }
        if raw.get().starts_with('[') {
            for element in serde_json::from_str::<Vec<&'a RawValue>>(raw.get())? {
                self.object(element, depth - 1)?;
            }
        }
        if !raw.get().starts_with('{') {
            return Ok(emptied);
        }
        for (key, value) in serde_json::from_str::<BTreeMap<String, &'a RawValue>>(raw.get())? {
            if key == "plugins" && value.get().starts_with('[') {
                emptied = self.list(value)?;
            }
            self.object(value, depth - 1)?;
        }
        Ok(emptied)
    }

    /// An entry goes with the comma that parts it from the one before it, or after it where
    /// there is none before.
    fn list(&mut self, raw: &'a RawValue) -> serde_json::Result<Emptied> {
        let plugins: Vec<&'a RawValue> = serde_json::from_str(raw.get())?;
        let known = |plugin: &RawValue| {
            let known = serde_json::from_str::<Plugin>(plugin.get()).ok();
            known.filter(|plugin| plugin.type_ == NAME)
        };
        let ours = |plugin: &&RawValue| known(plugin).is_some();
        let first_kept = plugins.iter().position(|plugin| !ours(plugin));
        let (Some(first), Some(last)) = (plugins.first(), plugins.last()) else {
            return Ok(Emptied::Not);
        };
        let Some(kept) = first_kept else {
            let all = self.range(first).start..self.range(last).end;
            self.ranges.push(all);
            return Ok(Emptied::Wholly);
        };
        if kept > 0 {
            let head = self.range(first).start..self.range(plugins[kept]).start;
            self.ranges.push(head);
        }
        for pair in plugins[kept..].windows(2) {
            if ours(&pair[1]) {
                let cut = self.range(pair[0]).end..self.range(pair[1]).end;
                self.ranges.push(cut);
            }
        }
        let marked = plugins.iter().any(|it| known(it).is_some_and(|it| it.list_of.is_some()));
        Ok(if marked { Emptied::Wholly } else { Emptied::Not })
    }

    /// Where a part of the text stands in it: parts are borrowed from it.
    fn range(&self, part: &RawValue) -> Range<usize> {
        let start = part.get().as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.get().len()
    }

    fn apply(mut self) -> String {
        self.ranges.sort_by_key(|range| range.start);
        let mut kept = String::with_capacity(self.text.len());
        let mut from = 0;
        for range in self.ranges {
            // Within an entry that goes as a whole.
            if range.start < from {
                continue;
            }
            kept.push_str(&self.text[from..range.start]);
            from = range.end;
        }
        kept + &self.text[from..]
    }
}

/// Written beside it under a name that no runtime reads, and renamed over. A link stays one:
/// what it leads to is replaced.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let mode = std::fs::metadata(&path)?.permissions().mode();
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let fresh = folder.join(format!(".{name}.sluice-new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    File::open(folder)?.sync_all()
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> UndoError + 'a {
    move |source| UndoError { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
