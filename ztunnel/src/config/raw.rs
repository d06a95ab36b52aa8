//! The environment as it is, and a reader that remembers what was asked and what was
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::{self, Flag};

/// Names and values of the environment.
#[derive(Clone, Debug, Default)]
pub struct Raw(BTreeMap<String, String>);

impl Raw {
    /// The environment of this process. Variables that are not UTF-8 cannot be settings
    /// of ours.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
    pub fn from_env() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(texts.collect())
    }

    /// These variables and no others.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Names this short are too likely to be near one of ours by chance.
const SHORTEST_SUSPECT: usize = 8;

pub(super) struct Reader<'a> {
    raw: &'a Raw,
    asked: BTreeSet<&'static str>,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a Raw) -> Self {
        Self { raw, asked: BTreeSet::new(), mistakes: Vec::new() }
    }

    /// The value; an empty one is none.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.asked.insert(name);
        self.raw.0.get(name).map(|text| text.trim()).filter(|text| !text.is_empty()).map(Into::into)
    }

    /// Set on purpose to nothing.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.raw.0.get(name).is_some_and(|text| text.trim().is_empty())
    }

    pub(super) fn required(&mut self, name: &'static str, what: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.mistakes.push(format!("{name} is not set: {what}"));
            String::new()
        })
    }

    /// The value by `parse`; after a mistake the default, which nobody will use.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.text(name) else {
            return default;
        };
        parse(&text).unwrap_or_else(|reason| {
            self.mistake(name, &reason);
            default
        })
    }

    pub(super) fn flag(&mut self, name: &'static str, default: Flag) -> Flag {
        self.value(name, default, parse::flag)
    }

    pub(super) fn mistake(&mut self, name: &str, reason: &str) {
        let text = self.raw.0.get(name).map_or("", String::as_str);
        let mistake = format!("{name}={text:?}: {reason}");
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Variables whose names begin with `prefix`.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<String> {
        self.raw.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The same with values: what follows the prefix, and the text. Empty ones are none.
    pub(super) fn pairs(&self, prefix: &str) -> Vec<(String, String)> {
        let values = self.raw.0.iter().filter_map(|(name, text)| {
            let (name, text) = (name.strip_prefix(prefix)?, text.trim());
            (!name.is_empty() && !text.is_empty()).then(|| (name.to_owned(), text.to_owned()))
        });
        values.collect()
    }

    /// Warnings and mistakes.
    pub(super) fn finish(self) -> (Vec<String>, Vec<String>) {
        let strangers = self.raw.0.keys().filter(|name| !self.asked.contains(name.as_str()));
        let warnings = strangers.filter_map(|name| {
            let near = |known: &&&str| parse::distance(name, known) <= 2;
            let known = self.asked.iter().find(near)?;
            (name.len() >= SHORTEST_SUSPECT)
                .then(|| format!("{name} is no setting of ours, was {known} meant?"))
        });
        (warnings.collect(), self.mistakes)
    }
}
