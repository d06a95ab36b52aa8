//! PURE. How the runtime's configuration is freed of our plugin: lists of our own are removed,
//! and where our entry stands in somebody's list, it is cut out of the text, also in lists
//! within lists, as Multus has them. Multus may call a list of ours by its path: it then calls
//! the one of which ours was made, or, where that is not there, ours stays without our entry.
//! All other bytes stay as they are.

mod cuts;

use std::collections::BTreeMap;

use super::entry::PLUGIN;
use super::folder::FRESH;
use super::list::{List, Shape};
use super::plan::{Change, Found, View};
use cuts::{Without, calls, without};

/// What is to be done, and what hinders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// The steps, in order: what is called by others goes after those were told.
    pub changes: Vec<Change>,
    /// Files that name our plugin and cannot be understood.
    pub troubles: Vec<String>,
    /// What people should know.
    pub notes: Vec<String>,
    /// Files that are to be removed, and that others still call.
    pub called: BTreeMap<String, String>,
}

/// Decides. The file `own` is ours, whatever is in it. Files that cannot be read are
/// somebody else's: ours can.
#[must_use]
pub fn undo(view: &View, own: &str) -> Undo {
    let mut undo = Undo::default();
    let ours = ours(view, own);
    for (name, found) in &view.files {
        if let Some(source) = ours.get(name) {
            undo.one_of_ours(name, found, source.as_deref(), view, own);
        } else if let Found::Text(text) = found {
            undo.one_of_theirs(name, text, &ours);
        }
    }
    let left = view.others.iter().filter(|name| name.starts_with('.') && name.ends_with(FRESH));
    undo.changes.extend(left.map(|name| Change::Remove { name: name.clone(), of: None }));
    undo.changes.sort_by_key(|change| matches!(change, Change::Remove { .. }));
    undo
}

/// Files that are ours as a whole, and which is called in its place: the one of which it was
/// made, if that can be used.
fn ours(view: &View, own: &str) -> BTreeMap<String, Option<String>> {
    let ours = view.files.iter().filter_map(|(name, found)| {
        let text = match found {
            Found::Text(text) => text.as_str(),
            Found::Unusable(_) | Found::Unread(_) => "",
        };
        let list = List::parse(Shape::List, text);
        let made_of = list.ok().and_then(|list| list.made_of());
        let is_alone =
            || text.contains(PLUGIN) && matches!(without(text), Ok(Some(Without::Nothing)));
        if name != own && made_of.is_none() && !is_alone() {
            return None;
        }
        let is_list = |source: &String| {
            let Some(Found::Text(text)) = view.files.get(source) else { return false };
            Shape::of(source)
                .is_some_and(|shape| List::parse(shape, text).is_ok_and(|list| list.has_others()))
        };
        Some((name.clone(), made_of.filter(is_list)))
    });
    ours.collect()
}

impl Undo {
    /// Where others call it and there is nothing else for them to call, it stays as a list
    /// without our plugin.
    fn one_of_ours(
        &mut self,
        name: &str,
        found: &Found,
        source: Option<&str>,
        view: &View,
        own: &str,
    ) {
        let Some(by) = caller(view, name) else {
            let of = match found {
                Found::Text(text) if name != own => Some(text.clone()),
                _ => None,
            };
            return self.changes.push(Change::Remove { name: name.to_owned(), of });
        };
        let text = match found {
            Found::Text(text) => text.as_str(),
            Found::Unusable(_) | Found::Unread(_) => "",
        };
        let list = List::parse(Shape::List, text).ok().filter(|list| list.has_others());
        match (source, list) {
            (Some(_), _) => {
                self.called.insert(name.to_owned(), by);
                self.changes.push(Change::Remove { name: name.to_owned(), of: None });
            }
            // It leads nowhere with us or without.
            (None, None) => self.changes.push(Change::Remove { name: name.to_owned(), of: None }),
            (None, Some(list)) => {
                if list.has_ours() {
                    let (text, of) = (list.without(), Some(text.to_owned()));
                    self.changes.push(Change::Write { name: name.to_owned(), text, of });
                }
                self.notes.push(format!(
                    "network configuration {name} stays, without our plugin: Multus in {by} calls \
                     it by its path, and the one of which it was made is not there"
                ));
            }
        }
    }

    fn one_of_theirs(&mut self, name: &str, text: &str, ours: &BTreeMap<String, Option<String>>) {
        if !text.contains(PLUGIN) && !ours.keys().any(|own| text.contains(own.as_str())) {
            return;
        }
        match without(text).and_then(|left| cuts::call_instead(text, left, ours)) {
            Ok(None | Some(Without::Nothing)) => {}
            Ok(Some(Without::Text(left))) => {
                let (name, of) = (name.to_owned(), Some(text.to_owned()));
                self.changes.push(Change::Write { name, text: left, of });
            }
            Err(error) if text.contains(PLUGIN) => self.troubles.push(format!(
                "network configuration {name} names {PLUGIN} and is no JSON: {error}; take it \
                 out by hand"
            )),
            Err(_) => {}
        }
    }
}

/// Who calls this file by its path.
fn caller(view: &View, name: &str) -> Option<String> {
    let is_caller = |found: &Found| match found {
        Found::Text(text) => text.contains(name) && calls(text).is_ok_and(|it| it.has(name)),
        Found::Unusable(_) | Found::Unread(_) => false,
    };
    let mut others = view.files.iter().filter(|(other, _)| *other != name);
    others.find(|(_, found)| is_caller(found)).map(|(other, _)| other.clone())
}

#[cfg(test)]
mod tests;
