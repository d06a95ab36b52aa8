//! PURE. How the runtime's configuration is freed of our plugin: lists of our own are removed,
//! and where our entry stands in somebody's list, it is cut out of the text, also in lists
//! within lists, as Multus has them. All other bytes stay as they are.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::entry::PLUGIN;
use super::folder::FRESH;
use super::plan::{Change, Found, View};

/// Lists within lists: Multus has one level.
const DEEPEST: usize = 16;

/// What is to be done, and what hinders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// The steps, in any order.
    pub changes: Vec<Change>,
    /// Files that name our plugin and cannot be understood.
    pub troubles: Vec<String>,
}

/// Decides. The file `own` is ours, whatever is in it. Files that cannot be read are
/// somebody else's: ours can.
#[must_use]
pub fn undo(view: &View, own: &str) -> Undo {
    let mut undo = Undo::default();
    for (name, found) in &view.files {
        match found {
            _ if name == own => undo.changes.push(Change::Remove { name: name.clone() }),
            Found::Text(text) if text.contains(PLUGIN) => match without(text) {
                Ok(None) => {}
                Ok(Some(Without::Nothing)) => {
                    undo.changes.push(Change::Remove { name: name.clone() });
                }
                Ok(Some(Without::Text(text))) => {
                    undo.changes.push(Change::Write { name: name.clone(), text });
                }
                Err(error) => undo.troubles.push(format!(
                    "network configuration {name} names {PLUGIN} and is no JSON: {error}; take \
                     it out by hand"
                )),
            },
            Found::Text(_) | Found::Unusable(_) => {}
        }
    }
    let left = view.others.iter().filter(|name| name.starts_with('.') && name.ends_with(FRESH));
    undo.changes.extend(left.map(|name| Change::Remove { name: name.clone() }));
    undo
}

/// What is left of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Without {
    /// It is ours as a whole.
    Nothing,
    /// This text.
    Text(String),
}

/// The text without our entries; `None` when there are none.
fn without(text: &str) -> serde_json::Result<Option<Without>> {
    let whole: &RawValue = serde_json::from_str(text)?;
    let mut cuts = Cuts { text, ranges: Vec::new() };
    let emptied = cuts.object(whole, DEEPEST)?;
    if emptied == Emptied::Wholly {
        return Ok(Some(Without::Nothing));
    }
    Ok((!cuts.ranges.is_empty()).then(|| Without::Text(cuts.apply())))
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

#[cfg(test)]
mod tests;
