//! The environment as it is, and a reader that remembers what was asked and what was
//! wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use super::parse::{self, Flag};
use super::proxy_config::{self, Behind, MESH_FILE};
use super::similar::Known;

/// More than any mesh has to say about its proxies.
const LARGEST_FILE: u64 = 1 << 20;

/// Names and values of the environment, and the mesh's configuration as it was found.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    names: BTreeMap<String, String>,
    mesh: Option<Result<String, String>>,
}

impl Raw {
    /// The environment of this process. Variables that are not UTF-8 cannot be settings
    /// of ours.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
    pub fn from_env() -> Self {
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self { names: texts.collect(), mesh: mesh_file() }
    }

    /// These variables and no others.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter();
        let names = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { names, mesh: None }
    }

    /// The same with this configuration of the mesh.
    #[cfg(test)]
    pub(super) fn with_mesh(self, text: &str) -> Self {
        Self { mesh: Some(Ok(text.to_owned())), ..self }
    }
}

fn mesh_file() -> Option<Result<String, String>> {
    let read = || {
        let mut text = String::new();
        File::open(MESH_FILE)?.take(LARGEST_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => None,
        result => Some(result.map_err(|error| error.to_string())),
    }
}

pub(super) struct Reader<'a> {
    raw: &'a Raw,
    behind: BTreeMap<String, Behind>,
    known: Known,
    warnings: Vec<String>,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a Raw) -> Self {
        let own = raw.names.get(proxy_config::SETTING).map(String::as_str);
        let mesh = raw.mesh.as_ref();
        let text = mesh.and_then(|mesh| mesh.as_deref().ok());
        let (behind, mut mistakes) = proxy_config::settings(text, own);
        if let Some(Err(error)) = mesh {
            mistakes.push(format!("{MESH_FILE}: {error}"));
        }
        let mut known = Known::default();
        known.names.insert(proxy_config::SETTING);
        Self { raw, behind, known, warnings: Vec::new(), mistakes }
    }

    /// The value; an empty one is none.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.names.insert(name);
        self.found(name).map(|text| text.trim()).filter(|text| !text.is_empty()).map(Into::into)
    }

    fn found(&self, name: &str) -> Option<&String> {
        self.raw.names.get(name).or_else(|| Some(&self.behind.get(name)?.value))
    }

    /// Set on purpose to nothing.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.found(name).is_some_and(|text| text.trim().is_empty())
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
        let text = self.found(name).map_or("", String::as_str);
        let behind = self.behind.get(name).filter(|_| !self.raw.names.contains_key(name));
        let origin = behind.map(|behind| format!(" (of {})", behind.origin)).unwrap_or_default();
        let mistake = format!("{name}={text:?}{origin}: {reason}");
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// What looks wrong but keeps nobody from starting.
    pub(super) fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// A mistake in a value that must not be shown.
    pub(super) fn secret_mistake(&mut self, name: &str, reason: &str) {
        self.mistakes.push(format!("{name}: {reason}"));
    }

    /// Names and values of variables whose names begin with `prefix`.
    pub(super) fn family(&mut self, prefix: &'static str) -> Vec<(String, String)> {
        self.known.families.insert(prefix);
        let family = self.raw.names.iter().filter(|(name, _)| name.starts_with(prefix));
        family.map(|(name, value)| (name.clone(), value.trim().to_owned())).collect()
    }

    /// The same with what stands behind the environment: what follows the prefix, and the
    /// text. Empty ones are none.
    pub(super) fn pairs(&mut self, prefix: &'static str) -> Vec<(String, String)> {
        self.known.families.insert(prefix);
        let behind = self.behind.iter().map(|(name, behind)| (name, &behind.value));
        let all: BTreeMap<_, _> = behind.chain(&self.raw.names).collect();
        let values = all.into_iter().filter_map(|(name, text)| {
            let (name, text) = (name.strip_prefix(prefix)?, text.trim());
            (!name.is_empty() && !text.is_empty()).then(|| (name.to_owned(), text.to_owned()))
        });
        values.collect()
    }

    /// Warnings and mistakes.
    pub(super) fn finish(self) -> (Vec<String>, Vec<String>) {
        let suspicions = self.raw.names.keys().filter_map(|name| self.known.suspicion(name));
        (self.warnings.into_iter().chain(suspicions).collect(), self.mistakes)
    }
}
