//! PURE. What the runtime's configuration folder must hold, by what it holds.
//!
//! ```text
//! 00-sluice.conflist   ours: the list of the first usable file after it, and our entry
//! 10-primary.conflist  somebody's, left alone
//! ```
//!
//! The runtime takes the first file, which is ours at any moment, whatever the owners of the
//! others do. What is new in theirs comes into ours later, which no pod minds. A file that
//! sorts before ours would win: our entry is appended to it.
//!
//! Owners write their files in several steps, or remove and write them. So a file that is
//! gone or broken is waited for, before another network is taken for it.

mod choose;
mod draft;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::entry::Entry;
use super::list::{List, Shape};
use super::report::Report;
use draft::Draft;

/// How long a file that is gone or broken is waited for.
pub const GRACE: Duration = Duration::from_secs(5);

/// Where our entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In a list of our own that sorts first.
    Own,
    /// In the primary's file.
    Append,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where our entry stands.
    pub mode: Mode,
    /// Name of our own list's file.
    pub own: String,
    /// What our plugin is told.
    pub entry: Entry,
}

/// One file that runtimes read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its content.
    Text(String),
    /// Why nobody can use it.
    Unusable(String),
    /// Why we cannot read it; the runtime perhaps can.
    Unread(String),
}

/// The folder at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Files that runtimes read, in their order.
    pub files: BTreeMap<String, Found>,
    /// Names of all other files.
    pub others: BTreeSet<String>,
}

/// What is remembered between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The file of which our list is made.
    pub source: Option<String>,
    /// Our list, when it was last made.
    pub text: Option<String>,
    /// Since when a file has been waited for.
    pub doubt: Option<Duration>,
}

/// One step, to be done in order. Each may be the last one: at any moment the first usable
/// file has our entry, if it had it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file's whole new content.
    Write {
        /// Its name.
        name: String,
        /// What it holds then.
        text: String,
        /// The text of which that was made: with any other in it by now, the file is somebody's
        /// work and is left alone. `None`: it is ours as a whole.
        of: Option<String>,
    },
    /// A file of ours that is not needed.
    Remove {
        /// Its name.
        name: String,
        /// Likewise.
        of: Option<String>,
    },
}

impl Change {
    /// The file's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Write { name, .. } | Self::Remove { name, .. } => name,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub changes: Vec<Change>,
    /// The files with our entry, as they will be.
    pub wanted: BTreeMap<String, String>,
    /// What people should know.
    pub reports: BTreeSet<Report>,
    /// For the next look.
    pub past: Past,
    /// When to look again though nothing happens.
    pub again: Option<Duration>,
}

/// A file of somebody else's.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    name: &'a str,
    list: Result<List<'a>, Flaw>,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nobody can.
    Broken(String),
    /// We cannot read it.
    Unread(String),
}

impl Past {
    /// What an earlier life has left.
    #[must_use]
    pub fn inherited(view: &View, settings: &Settings) -> Self {
        let Some(Found::Text(text)) = view.files.get(&settings.own) else { return Self::default() };
        let source = List::parse(Shape::List, text).ok().and_then(|list| list.made_of());
        match source.filter(|source| !source.is_empty()) {
            Some(source) => Self { source: Some(source), text: Some(text.clone()), doubt: None },
            None => Self::default(),
        }
    }
}

/// Decides. `now` counts from any beginning, the same for all looks.
#[must_use]
pub fn plan(view: &View, settings: &Settings, past: &Past, now: Duration) -> Plan {
    let candidates = candidates(view, settings);
    let mut draft = Draft::new(settings);
    draft.reports.extend(candidates.iter().filter_map(Candidate::flaw));
    let (past, again) = match mode(settings, &candidates) {
        Mode::Append => draft.append(&candidates, past, now),
        Mode::Own => {
            let own = settings.own.as_str();
            let start = candidates.partition_point(|candidate| candidate.name < own);
            let unread = first_unread(&candidates[..start]).map(|it| it.name.to_owned());
            draft.reports.extend(unread.map(|file| Report::Blind { file }));
            if let Some((name, list)) = usable(&candidates[..start]).next() {
                draft.reports.insert(Report::SortsFirst { file: name.to_owned() });
                draft.append_to(name, list, &candidates);
            }
            let after: Vec<_> =
                candidates[start..].iter().map(|it| it.unless_circle(own)).collect();
            draft.reports.extend(after.iter().filter_map(Candidate::flaw));
            draft.own_list(&after, past, now)
        }
    };
    let waits = settings.mode == Mode::Append && past.doubt.is_some();
    let changes = match waits {
        true => Vec::new(),
        false => changes(view, &candidates, &draft.wanted, settings),
    };
    Plan { changes, wanted: draft.wanted, reports: draft.reports, past, again }
}

/// A list of our own that another plugin calls by its path stays, or no pod could start.
fn mode(settings: &Settings, candidates: &[Candidate<'_>]) -> Mode {
    let calls_own =
        |(_, list): (&str, &List<'_>)| list.delegates_to() == Some(settings.own.clone());
    match usable(candidates).next().is_some_and(calls_own) {
        true => Mode::Own,
        false => settings.mode,
    }
}

impl Candidate<'_> {
    fn flaw(&self) -> Option<Report> {
        let (Flaw::Broken(why) | Flaw::Unread(why)) = self.list.as_ref().err()?.clone();
        Some(Report::Unusable { file: self.name.to_owned(), why })
    }

    /// What calls our list cannot be called by it.
    fn unless_circle(&self, own: &str) -> Self {
        let mut this = self.clone();
        let calls =
            |list: &List<'_>| list.nests_ours() || list.delegates_to().as_deref() == Some(own);
        if this.list.as_ref().is_ok_and(calls) {
            let why = "it calls our own list, which sorts before it and is used: let it sort first";
            this.list = Err(Flaw::Broken(why.into()));
        }
        this
    }

    fn is_unread(&self) -> bool {
        matches!(self.list, Err(Flaw::Unread(_)))
    }
}

/// Files that are not ours as a whole.
fn candidates<'a>(view: &'a View, settings: &Settings) -> Vec<Candidate<'a>> {
    let files = view.files.iter().filter(|(name, found)| !is_ours(name, found, settings));
    let candidate = |(name, found): (&'a String, &'a Found)| {
        let list = match (found, Shape::of(name)) {
            (Found::Text(text), Some(shape)) => List::parse(shape, text).map_err(Flaw::Broken),
            (Found::Text(_), None) => {
                Err(Flaw::Broken("no runtime reads a file of this name".into()))
            }
            (Found::Unusable(why), _) => Err(Flaw::Broken(why.clone())),
            (Found::Unread(why), _) => Err(Flaw::Unread(why.clone())),
        };
        let list = list.and_then(|list| match list.has_others() {
            true => Ok(list),
            false => Err(Flaw::Broken("it has no plugin but ours".into())),
        });
        Candidate { name, list }
    };
    files.map(candidate).collect()
}

fn is_ours(name: &str, found: &Found, settings: &Settings) -> bool {
    let Found::Text(text) = found else { return name == settings.own };
    let marked = || List::parse(Shape::List, text).is_ok_and(|list| list.made_of().is_some());
    name == settings.own || marked()
}

fn usable<'a, 'b>(
    candidates: &'b [Candidate<'a>],
) -> impl Iterator<Item = (&'a str, &'b List<'a>)> {
    candidates.iter().filter_map(|it| it.list.as_ref().ok().map(|list| (it.name, list)))
}

/// A file that the runtime perhaps takes before all that we can use.
fn first_unread<'b, 'a>(candidates: &'b [Candidate<'a>]) -> Option<&'b Candidate<'a>> {
    candidates.iter().take_while(|it| it.list.is_err()).find(|it| it.is_unread())
}

/// What has our entry is written first, what is to have it no more comes last.
fn changes(
    view: &View,
    candidates: &[Candidate<'_>],
    wanted: &BTreeMap<String, String>,
    settings: &Settings,
) -> Vec<Change> {
    let differs = |(name, text): &(&String, &String)| {
        view.files.get(*name) != Some(&Found::Text((*text).clone()))
    };
    let text = |name: &str| match view.files.get(name) {
        Some(Found::Text(text)) => Some(text.clone()),
        _ => None,
    };
    // What is ours as a whole is made again whatever somebody has written into it.
    let of = |name: &str| {
        let found = view.files.get(name)?;
        if is_ours(name, found, settings) { None } else { text(name) }
    };
    let write =
        |name: &str, text: String| Change::Write { name: name.to_owned(), text, of: of(name) };
    let fresh = wanted.iter().filter(differs).map(|(name, text)| write(name, text.clone()));
    let strip = usable(candidates).filter(|(name, list)| {
        list.has_ours() && !wanted.contains_key(*name) && !wanted.is_empty()
    });
    let strip = strip.map(|(name, list)| write(name, list.without()));
    let called =
        |name: &str| usable(candidates).any(|it| it.1.delegates_to().as_deref() == Some(name));
    let stray = view.files.iter().filter(|(name, found)| {
        is_ours(name, found, settings) && !wanted.contains_key(*name) && !called(name)
    });
    let stray = stray.map(|(name, _)| {
        let of = text(name).filter(|_| *name != settings.own);
        Change::Remove { name: name.clone(), of }
    });
    fresh.chain(strip).chain(stray).collect()
}

#[cfg(test)]
mod tests;
