//! A mesh view from YAML, for a ztunnel without a control plane, or with entries of its
//! own besides.
//!
//! The text is turned into the messages that a control plane would send, and they go
//! through the same parsing. It is read once, at the start. All that is wrong in it is
//! told at once: a mesh that is known in part would take members for strangers.
//! `ztunnel/examples/mesh.yaml` shows every key.

mod policy;
mod service;
mod text;
mod workload;

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use mesh::{Policy, Service, View, Workload};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

/// Where the YAML is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File(PathBuf),
    /// In the setting itself.
    Inline(String),
}

/// Why there is no local view.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The file cannot be read.
    #[error("read the local mesh {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a map of lists.
    #[error("the local mesh {origin} is not YAML with workloads, services and policies: {source}")]
    Yaml {
        /// Which text.
        origin: String,
        /// What is wrong.
        source: serde_yaml_ng::Error,
    },
    /// Some entries are wrong.
    #[error("the local mesh {origin} cannot be used:{mistakes}")]
    Entries {
        /// Which text.
        origin: String,
        /// All that is wrong.
        mistakes: Mistakes,
    },
}

/// What is wrong with entries: one sentence each, naming entry and key.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// One sentence per mistake; never empty in an error.
    #[must_use]
    pub fn each(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// The text, with its entries not looked at yet: each is read on its own, so that one
/// mistake does not hide the next.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entries {
    workloads: Vec<Value>,
    services: Vec<Value>,
    policies: Vec<Value>,
}

/// Reads the view.
///
/// # Errors
/// [`LocalError`], with everything that is wrong.
pub fn load(origin: &Origin) -> Result<View, LocalError> {
    let (origin, text) = match origin {
        Origin::Inline(text) => ("in LOCAL_XDS".to_owned(), text.clone()),
        Origin::File(path) => {
            let failed = |source| LocalError::Read { path: path.clone(), source };
            (path.display().to_string(), fs::read_to_string(path).map_err(failed)?)
        }
    };
    let entries = match serde_yaml_ng::from_str::<Option<Entries>>(&text) {
        Ok(entries) => entries.unwrap_or_default(),
        Err(source) => return Err(LocalError::Yaml { origin, source }),
    };
    let (view, mistakes) = build(entries);
    if mistakes.0.is_empty() { Ok(view) } else { Err(LocalError::Entries { origin, mistakes }) }
}

fn build(entries: Entries) -> (View, Mistakes) {
    let (mut view, mut mistakes) = (View::default(), Mistakes::default());
    each(entries.workloads, "workloads", "uid", &mut mistakes, |entry: workload::Entry| {
        let workload = Workload::try_from(entry.message()?).map_err(|e| e.to_string())?;
        if view.workload(workload.uid()).is_some() {
            return Err("uid: another workload has it too".to_owned());
        }
        view.insert_workload(workload);
        Ok(())
    });
    each(entries.policies, "policies", "name", &mut mistakes, |entry: policy::Entry| {
        let policy = Policy::try_from(entry.message()?).map_err(|e| e.to_string())?;
        if view.policies().any(|other| other.key() == policy.key()) {
            return Err("name: another policy of the namespace has it too".to_owned());
        }
        view.insert_policy(policy);
        Ok(())
    });
    each(entries.services, "services", "hostname", &mut mistakes, |entry: service::Entry| {
        let service = Service::try_from(entry.message()?).map_err(|e| e.to_string())?;
        if view.service(&service.key).is_some() {
            return Err("hostname: another service of the namespace has it too".to_owned());
        }
        view.insert_service(service);
        Ok(())
    });
    (view, mistakes)
}

/// Reads every entry of a list. `key` is what names one in a mistake.
fn each<T: DeserializeOwned>(
    entries: Vec<Value>,
    list: &str,
    key: &str,
    mistakes: &mut Mistakes,
    mut read: impl FnMut(T) -> Result<(), String>,
) {
    for (index, entry) in entries.into_iter().enumerate() {
        let name = entry.get(key).and_then(Value::as_str).unwrap_or("nameless").to_owned();
        if let Err(reason) = parse(&entry).and_then(&mut read) {
            mistakes.0.push(format!("{list}[{index}] {name}: {reason}"));
        }
    }
}

/// Reads one entry. Only of text does the parser tell the key of a mistake, so the entry
/// becomes text again; the place in that text means nothing to anybody.
fn parse<T: DeserializeOwned>(entry: &Value) -> Result<T, String> {
    let text = serde_yaml_ng::to_string(entry).map_err(|error| error.to_string())?;
    serde_yaml_ng::from_str(&text).map_err(|error| {
        let place = error
            .location()
            .map(|at| format!(" at line {} column {}", at.line(), at.column()))
            .unwrap_or_default();
        let reason = error.to_string();
        reason.strip_suffix(&place).unwrap_or(&reason).to_owned()
    })
}

#[cfg(test)]
mod tests;
