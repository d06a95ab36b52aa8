//! PURE. Network configurations as text: what they say, and the same text with our entry or
//! without it. Only commas and our entry are written, all else is copied: no number, unknown
//! key or order of somebody else's changes, and CNI's caches, IPAM and GC, which go by the
//! network's name, know the network as before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::entry::PLUGIN;

/// Versions of the specification that our plugin speaks.
const SPOKEN: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What runtimes take a configuration for that names no version.
const UNNAMED: &str = "0.1.0";
/// Between plugins that stand in one line.
const NO_INDENT: &str = " ";

/// How the types of all Multus begin.
const MULTUS: &str = "multus";
/// Which of its keys names the network to delegate to: by a path, or otherwise.
pub(super) const DELEGATE: &str = "clusterNetwork";

/// What a file holds, which runtimes tell by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A list of plugins, `*.conflist`.
    List,
    /// One plugin, `*.conf` or `*.json`.
    Single,
}

impl Shape {
    /// `None`: no runtime reads a file of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "conflist" => Some(Self::List),
            "conf" | "json" => Some(Self::Single),
            _ => None,
        }
    }
}

/// A configuration that a runtime can use.
#[derive(Clone, Debug)]
pub struct List<'a> {
    text: &'a str,
    shape: Shape,
    /// As they are written; the version may be absent.
    name: &'a RawValue,
    version: Option<&'a RawValue>,
    versions: Vec<String>,
    plugins: Vec<Plugin<'a>>,
}

#[derive(Clone, Debug)]
struct Plugin<'a> {
    kind: String,
    raw: &'a RawValue,
}

type Keys<'a> = BTreeMap<String, &'a RawValue>;

impl<'a> List<'a> {
    /// Reads a file's text as runtimes do.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(shape: Shape, text: &'a str) -> Result<Self, String> {
        let keys: Keys<'a> =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))?;
        let name = *keys.get("name").ok_or("it has no name")?;
        if !value::<String>(name).is_some_and(|name| is_name(&name)) {
            return Err(format!("its name is {name}, which is not the name of a network"));
        }
        let plugins = match shape {
            Shape::List => plugins(&keys)?,
            Shape::Single if keys.contains_key("plugins") => {
                return Err("it is a list, which only a *.conflist may be".into());
            }
            Shape::Single => {
                let raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
                vec![plugin(raw)?]
            }
        };
        let version = keys.get("cniVersion").copied();
        let mut versions: Vec<String> =
            keys.get("cniVersions").copied().and_then(value).unwrap_or_default();
        versions.push(version.and_then(value).unwrap_or_else(|| UNNAMED.to_owned()));
        Ok(Self { text, shape, name, version, versions, plugins })
    }

    /// Whether there is any plugin but ours.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.kinds().any(|kind| kind != PLUGIN)
    }

    /// Whether our plugin is named.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        self.kinds().any(|kind| kind == PLUGIN)
    }

    /// Whether another plugin calls ours by itself, as Multus does when it delegates to our
    /// list.
    #[must_use]
    pub fn nests_ours(&self) -> bool {
        let ours = format!("\"{PLUGIN}\"");
        let others = self.plugins.iter().filter(|plugin| plugin.kind != PLUGIN);
        others.into_iter().any(|plugin| plugin.raw.get().contains(&ours))
    }

    /// Whether Multus is called, which calls other lists by itself.
    #[must_use]
    pub fn is_multus(&self) -> bool {
        self.kinds().any(|kind| kind.starts_with(MULTUS))
    }

    /// The name of the file that Multus calls by its path, as its daemon writes it
    /// (`clusterNetwork`). The path is the daemon's: only the file's name means something here.
    #[must_use]
    pub fn delegates_to(&self) -> Option<String> {
        let multus = self.plugins.iter().find(|plugin| plugin.kind.starts_with(MULTUS))?;
        let keys: Keys<'_> = serde_json::from_str(multus.raw.get()).ok()?;
        let path: String = keys.get(DELEGATE).copied().and_then(value)?;
        file_of(&path).map(str::to_owned)
    }

    /// The namespaces that our entry excludes, here or in a list that another plugin has a copy
    /// of; `None` where our plugin is not called. Where it stands in a list, something is before
    /// it: a plugin that is called alone has no pod to capture.
    #[must_use]
    pub fn excluded(&self) -> Option<BTreeSet<String>> {
        if self.shape == Shape::List
            && let Some(ours) = self.plugins.iter().rfind(|plugin| plugin.kind == PLUGIN)
        {
            return Some(excluded(ours.raw));
        }
        let others = self.plugins.iter().filter(|plugin| plugin.kind != PLUGIN);
        others.into_iter().find_map(|plugin| {
            let keys: Keys<'_> = serde_json::from_str(plugin.raw.get()).ok()?;
            let delegates: Vec<Keys<'_>> = keys.get("delegates").copied().and_then(borrowed)?;
            delegates
                .iter()
                .filter_map(|it| plugins(it).ok())
                .flatten()
                .find_map(|plugin| (plugin.kind == PLUGIN).then(|| excluded(plugin.raw)))
        })
    }

    /// The plugins' types, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| plugin.kind.as_str())
    }

    /// The version that our plugin would be called in, if it does not speak it.
    #[must_use]
    pub fn unspoken(&self) -> Option<&str> {
        let spoken = self.versions.iter().any(|version| SPOKEN.contains(&version.as_str()));
        if spoken { None } else { self.versions.last().map(String::as_str) }
    }

    /// Of which file this is our own list. `None`: it is not ours as a whole, or of no file.
    #[must_use]
    pub fn made_of(&self) -> Option<String> {
        let ours = self.plugins.iter().rfind(|plugin| plugin.kind == PLUGIN)?;
        let keys: Keys<'_> = serde_json::from_str(ours.raw.get()).ok()?;
        keys.get("listOf").copied().and_then(value)
    }

    /// The list with `entry` as its last plugin, and no other of ours in it. A single plugin
    /// becomes a list of the same name and version.
    #[must_use]
    pub fn with(&self, entry: &str) -> String {
        if self.shape == Shape::Single {
            return self.wrapped(entry);
        }
        let Some((kept, all)) = self.others() else { return self.text.to_owned() };
        let indent = self.indent(all.start);
        let (head, tail) = (&self.text[..all.start], &self.text[all.end..]);
        format!("{head}{kept},{indent}{entry}{tail}")
    }

    /// The list without our entry.
    #[must_use]
    pub fn without(&self) -> String {
        let Some((kept, all)) = self.others() else { return self.text.to_owned() };
        format!("{}{kept}{}", &self.text[..all.start], &self.text[all.end..])
    }

    /// The text of the plugins that are not ours, and where all plugins stand.
    fn others(&self) -> Option<(String, Range<usize>)> {
        let all = self.range(self.plugins.first()?).start..self.range(self.plugins.last()?).end;
        let ours = |plugin: &&Plugin<'_>| plugin.kind == PLUGIN;
        let kept: Vec<_> = self.plugins.iter().filter(|plugin| !ours(plugin)).collect();
        let last = kept.last()?;
        // As it is written, where nothing has to go out of the middle.
        if self.plugins[..kept.len()].iter().all(|plugin| plugin.kind != PLUGIN) {
            return Some((self.text[all.start..self.range(last).end].to_owned(), all));
        }
        let parts: Vec<_> = kept.iter().map(|plugin| plugin.raw.get()).collect();
        Some((parts.join(&format!(",{}", self.indent(all.start))), all))
    }

    fn wrapped(&self, entry: &str) -> String {
        let version = self.version.map(|raw| format!("  \"cniVersion\": {raw},\n"));
        let (version, name) = (version.unwrap_or_default(), self.name);
        let text = self.text.trim();
        format!(
            "{{\n{version}  \"name\": {name},\n  \"plugins\": [\n{text},\n    {entry}\n  ]\n}}\n"
        )
    }

    /// What stands before the first plugin in its line, with the end of the line before; a
    /// blank, where it does not begin a line.
    fn indent(&self, start: usize) -> &str {
        let before = &self.text[..start];
        let blank = before.trim_end_matches([' ', '\t']).len();
        if before[..blank].ends_with('\n') { &before[blank - 1..] } else { NO_INDENT }
    }

    /// Where it stands in the text that it is borrowed from.
    fn range(&self, plugin: &Plugin<'a>) -> Range<usize> {
        let raw = plugin.raw.get();
        let start = raw.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + raw.len()
    }
}

/// The name of the file at the end of a path; `None` for what is no path, or a folder's.
pub(super) fn file_of(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(_, file)| file).filter(|file| !file.is_empty())
}

fn plugins<'a>(keys: &Keys<'a>) -> Result<Vec<Plugin<'a>>, String> {
    let raw = *keys.get("plugins").ok_or("it has no plugins")?;
    let raws: Vec<&'a RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| "its plugins are no list")?;
    if raws.is_empty() {
        return Err("its list of plugins is empty".into());
    }
    raws.into_iter().map(plugin).collect()
}

fn plugin(raw: &RawValue) -> Result<Plugin<'_>, String> {
    let keys: Option<Keys<'_>> = serde_json::from_str(raw.get()).ok();
    let kind = keys.and_then(|keys| keys.get("type").and_then(|kind| value::<String>(kind)));
    let kind = kind.filter(|kind| !kind.is_empty() && !kind.contains('/'));
    Ok(Plugin { kind: kind.ok_or("a plugin in it has no type")?, raw })
}

fn excluded(entry: &RawValue) -> BTreeSet<String> {
    let keys: Option<Keys<'_>> = serde_json::from_str(entry.get()).ok();
    keys.and_then(|keys| keys.get("excludeNamespaces").copied().and_then(value)).unwrap_or_default()
}

fn borrowed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn value<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// The specification's rule.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(letter) && name.chars().all(|c| letter(c) || "_.-".contains(c))
}

#[cfg(test)]
mod tests;
