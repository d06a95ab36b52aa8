//! What is taken out of a text, and what is put in its place. Everything else is copied.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::entry::PLUGIN;
use super::super::list::{DELEGATE, file_of};

/// Lists within lists: Multus has one level.
const DEEPEST: usize = 16;
/// Keys of Multus that name files by their path. Without the second one it starts no pod.
const PATHS: [&str; 2] = [DELEGATE, "readinessindicatorfile"];

/// What is left of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// It is ours as a whole.
    Nothing,
    /// This text.
    Text(String),
}

/// The text without our entries; `None` when there are none.
pub(super) fn without(text: &str) -> serde_json::Result<Option<Without>> {
    let whole: &RawValue = serde_json::from_str(text)?;
    let mut cuts = Cuts { text, ranges: Vec::new() };
    let emptied = cuts.object(whole, DEEPEST)?;
    if emptied == Emptied::Wholly {
        return Ok(Some(Without::Nothing));
    }
    let ranges = cuts.ranges.into_iter().map(|range| (range, String::new()));
    Ok((ranges.len() > 0).then(|| Without::Text(edited(text, ranges.collect()))))
}

/// What is left, with paths of files of ours leading to what they were made of.
pub(super) fn call_instead(
    text: &str,
    left: Option<Without>,
    ours: &BTreeMap<String, Option<String>>,
) -> serde_json::Result<Option<Without>> {
    let before = match &left {
        None => text,
        Some(Without::Text(left)) => left,
        Some(Without::Nothing) => return Ok(left),
    };
    let other = |(range, path): &(Range<usize>, String)| {
        let file = file_of(path)?;
        let source = ours.get(file)?.as_deref()?;
        let path = format!("{}{source}", path.strip_suffix(file)?);
        Some((range.clone(), serde_json::to_string(&path).ok()?))
    };
    let edits: Vec<_> = calls(before)?.0.iter().filter_map(other).collect();
    if edits.is_empty() {
        return Ok(left);
    }
    Ok(Some(Without::Text(edited(before, edits))))
}

/// Paths that a text names as Multus does, and where they stand in it.
pub(super) struct Calls(Vec<(Range<usize>, String)>);

impl Calls {
    pub(super) fn has(&self, file: &str) -> bool {
        self.0.iter().any(|(_, path)| file_of(path) == Some(file))
    }
}

/// Finds them.
pub(super) fn calls(text: &str) -> serde_json::Result<Calls> {
    let whole: &RawValue = serde_json::from_str(text)?;
    let mut calls = Calls(Vec::new());
    find_calls(text, whole, DEEPEST, &mut calls)?;
    Ok(calls)
}

fn find_calls(
    text: &str,
    raw: &RawValue,
    depth: usize,
    calls: &mut Calls,
) -> serde_json::Result<()> {
    if depth == 0 {
        return Ok(());
    }
    if raw.get().starts_with('[') {
        for element in serde_json::from_str::<Vec<&RawValue>>(raw.get())? {
            find_calls(text, element, depth - 1, calls)?;
        }
    }
    if !raw.get().starts_with('{') {
        return Ok(());
    }
    for (key, value) in serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get())? {
        if PATHS.contains(&key.as_str())
            && let Ok(path) = serde_json::from_str(value.get())
        {
            calls.0.push((range(text, value), path));
        }
        find_calls(text, value, depth - 1, calls)?;
    }
    Ok(())
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
            known.filter(|plugin| plugin.type_ == PLUGIN)
        };
        let ours = |plugin: &&RawValue| known(plugin).is_some();
        let first_kept = plugins.iter().position(|plugin| !ours(plugin));
        let (Some(first), Some(last)) = (plugins.first(), plugins.last()) else {
            return Ok(Emptied::Not);
        };
        let Some(kept) = first_kept else {
            let all = range(self.text, first).start..range(self.text, last).end;
            self.ranges.push(all);
            return Ok(Emptied::Wholly);
        };
        if kept > 0 {
            let head = range(self.text, first).start..range(self.text, plugins[kept]).start;
            self.ranges.push(head);
        }
        for pair in plugins[kept..].windows(2) {
            if ours(&pair[1]) {
                let cut = range(self.text, pair[0]).end..range(self.text, pair[1]).end;
                self.ranges.push(cut);
            }
        }
        let marked = plugins.iter().any(|it| known(it).is_some_and(|it| it.list_of.is_some()));
        Ok(if marked { Emptied::Wholly } else { Emptied::Not })
    }
}

/// Where a part of a text stands in it: parts are borrowed from it.
fn range(text: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - text.as_ptr().addr();
    start..start + part.get().len()
}

fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for (range, instead) in edits {
        // Within an entry that goes as a whole.
        if range.start < from {
            continue;
        }
        kept.push_str(&text[from..range.start]);
        kept.push_str(&instead);
        from = range.end;
    }
    kept + &text[from..]
}
