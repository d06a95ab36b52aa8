//! What is to stand in the folder, while it is being found out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::list::{List, Shape};
use super::super::report::Report;
use super::choose::{Choice, choose};
use super::{Candidate, GRACE, Past, Settings, usable};

/// Files with our entry, and what people should know about them.
pub(super) struct Draft<'a> {
    settings: &'a Settings,
    pub(super) wanted: BTreeMap<String, String>,
    pub(super) reports: BTreeSet<Report>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, wanted: BTreeMap::new(), reports: BTreeSet::new() }
    }

    /// Our own list, made of the first of `candidates`.
    pub(super) fn own_list(
        &mut self,
        candidates: &[Candidate<'_>],
        past: &Past,
        now: Duration,
    ) -> (Past, Option<Duration>) {
        let own = self.settings.own.clone();
        match choose(candidates, past, now) {
            Choice::Take(name, list) => {
                let others = usable(candidates).map(|(other, _)| other);
                let others: Vec<_> =
                    others.filter(|other| *other != name).map(str::to_owned).collect();
                if !others.is_empty() {
                    self.reports.insert(Report::Several { chosen: name.into(), others });
                }
                let text = self.list_of(name, list);
                self.wanted.extend(text.clone().map(|text| (own, text)));
                (Past { source: Some(name.into()), text, doubt: None }, None)
            }
            Choice::Keep { doubt, again } => {
                self.reports.extend(past.source.clone().map(|file| Report::Kept { file }));
                let text = past.text.clone();
                let shown = text.clone().unwrap_or_else(|| self.settings.entry.waiting());
                self.wanted.insert(own, shown);
                (Past { source: past.source.clone(), text, doubt: Some(doubt) }, again)
            }
            Choice::Blind { file, doubt, waits } => {
                self.reports.insert(Report::Blind { file: file.to_owned() });
                let text = past.text.clone().filter(|_| waits);
                self.wanted.extend(text.clone().map(|text| (own, text)));
                let again = (waits && text.is_some()).then_some(GRACE);
                (Past { source: past.source.clone(), text, doubt: Some(doubt) }, again)
            }
            Choice::Nobody => {
                // The one before us, if there is one, is used; ours then waits to be needed.
                if self.reports.iter().all(|it| !matches!(it, Report::SortsFirst { .. })) {
                    self.reports.insert(Report::NoPrimary);
                }
                self.wanted.insert(own, self.settings.entry.waiting());
                (Past::default(), None)
            }
        }
    }

    /// Our entry in the first of `candidates`.
    pub(super) fn append(
        &mut self,
        candidates: &[Candidate<'_>],
        past: &Past,
        now: Duration,
    ) -> (Past, Option<Duration>) {
        match choose(candidates, past, now) {
            Choice::Take(name, list) => {
                self.append_to(name, list, candidates);
                (Past { source: Some(name.into()), text: None, doubt: None }, None)
            }
            Choice::Keep { doubt, again } => {
                self.reports.extend(past.source.clone().map(|file| Report::Kept { file }));
                (Past { doubt: Some(doubt), ..past.clone() }, again)
            }
            Choice::Blind { file, doubt, .. } => {
                self.reports.insert(Report::Blind { file: file.to_owned() });
                (Past { doubt: Some(doubt), ..past.clone() }, None)
            }
            Choice::Nobody => {
                self.reports.insert(Report::NoPrimary);
                (Past::default(), None)
            }
        }
    }

    /// Our entry in this one, or in that of `all` which it calls.
    pub(super) fn append_to(&mut self, name: &str, list: &List<'_>, all: &[Candidate<'_>]) {
        let calls = list.delegates_to();
        if list.nests_ours() || calls.as_ref() == Some(&self.settings.own) {
            self.reports.insert(Report::Nested { file: name.to_owned() });
        } else if Shape::of(name) == Some(Shape::List) {
            self.add_entry(name, list);
        } else if list.is_multus() {
            // A list beside it would be taken by Multus for the network to delegate to, and
            // grow for ever.
            self.append_to_called(name, calls.as_deref(), all);
        } else {
            // No list may stand in such a file. Ours sorts right before it, `-` before `.`.
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            let text = self.list_of(name, list);
            self.wanted.extend(text.map(|text| (format!("{stem}-sluice.conflist"), text)));
        }
    }

    /// Multus calls a list by its path, which it found out when it started.
    fn append_to_called(&mut self, name: &str, calls: Option<&str>, all: &[Candidate<'_>]) {
        let called = calls.filter(|called| Shape::of(called) == Some(Shape::List));
        match called.and_then(|called| usable(all).find(|(file, _)| *file == called)) {
            Some((called, list)) => {
                let by = name.to_owned();
                self.reports.insert(Report::Called { file: called.to_owned(), by });
                self.add_entry(called, list);
            }
            None => drop(self.reports.insert(Report::MultusAlone { file: name.to_owned() })),
        }
    }

    fn add_entry(&mut self, name: &str, list: &List<'_>) {
        if self.is_spoken(name, list) {
            let entry = self.settings.entry.text(list.kinds(), None);
            self.wanted.insert(name.to_owned(), list.with(&entry));
        }
    }

    fn list_of(&mut self, name: &str, list: &List<'_>) -> Option<String> {
        let entry = self.settings.entry.text(list.kinds(), Some(name));
        self.is_spoken(name, list).then(|| list.with(&entry))
    }

    fn is_spoken(&mut self, name: &str, list: &List<'_>) -> bool {
        let unspoken = list
            .unspoken()
            .map(|version| Report::Unspoken { file: name.to_owned(), version: version.to_owned() });
        let spoken = unspoken.is_none();
        self.reports.extend(unspoken);
        spoken
    }
}
