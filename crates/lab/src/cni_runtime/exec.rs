//! One call of one plugin.

use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::conflist::{Conflist, Plugin};
use super::request::{self, About, Verb};
use crate::place::Place;
use crate::process::{self, Job, ProcessError, Ran};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin says so, in the words of the specification.
    #[error("plugin {plugin} failed {verb} with code {code}: {msg}{}", details_text(.details))]
    Refused {
        /// Name of the binary.
        plugin: String,
        /// What it was asked to do.
        verb: &'static str,
        /// The specification's or the plugin's own number.
        code: u32,
        /// One line.
        msg: String,
        /// More, where the plugin says more.
        details: String,
    },
    /// It ended in failure, or well, without a word that can be understood.
    #[error("plugin {plugin} ended {verb} with exit code {code:?} and no usable output: {output}")]
    Mute {
        /// Name of the binary.
        plugin: String,
        /// What it was asked to do.
        verb: &'static str,
        /// Its exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// The beginning of what it wrote.
        output: String,
    },
    /// No folder holds it.
    #[error("plugin {plugin} is in none of {folders:?}")]
    Missing {
        /// Name of the binary.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// It could not be run to its end; a late one was killed.
    #[error("plugin {plugin}: {source}")]
    Process {
        /// Name of the binary.
        plugin: String,
        /// What went wrong.
        source: ProcessError,
    },
}

impl PluginError {
    /// The code that the plugin gave, if it spoke.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// The error object of the specification.
#[derive(Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Where and how plugins are run.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    /// The runtime's own namespace, which plugins inherit; `None` is the host's.
    pub place: Option<Place>,
    /// `CNI_PATH`.
    pub folders: Vec<PathBuf>,
    /// Per call; a plugin that takes longer is killed.
    pub deadline: Duration,
}

impl Executor {
    /// The plugin's output; `None` where the specification has none.
    pub async fn call(
        &self,
        verb: Verb,
        list: &Conflist,
        plugin: &Plugin,
        about: About<'_>,
    ) -> Result<Option<Value>, PluginError> {
        let binary = self.find(&plugin.kind)?;
        let mut job = Job::new(binary);
        let order = RandomState::new();
        for (name, value) in request::environment(verb, about, &self.folders, &order) {
            job = job.env(name, value);
        }
        job.stdin = request::stdin(list, plugin, about).to_string().into_bytes();
        job.deadline = self.deadline;
        tracing::debug!(plugin = plugin.kind, verb = verb.as_str(), "run plugin");
        let ran = process::run(self.place.as_ref(), job)
            .await
            .map_err(|source| PluginError::Process { plugin: plugin.kind.clone(), source })?;
        outcome(&plugin.kind, verb, &ran)
    }

    pub fn find(&self, kind: &str) -> Result<PathBuf, PluginError> {
        let found = self.folders.iter().map(|folder| folder.join(kind)).find(|p| is_file(p));
        found.ok_or_else(|| PluginError::Missing {
            plugin: kind.to_owned(),
            folders: self.folders.clone(),
        })
    }
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn outcome(plugin: &str, verb: Verb, ran: &Ran) -> Result<Option<Value>, PluginError> {
    let mute = || PluginError::Mute {
        plugin: plugin.to_owned(),
        verb: verb.as_str(),
        code: ran.code,
        output: format!("{}{}", ran.stdout, ran.stderr).trim().chars().take(400).collect(),
    };
    if !ran.ok() {
        let refusal: Refusal = serde_json::from_str(&ran.stdout).map_err(|_| mute())?;
        let Refusal { code, msg, details } = refusal;
        let plugin = plugin.to_owned();
        return Err(PluginError::Refused { plugin, verb: verb.as_str(), code, msg, details });
    }
    match verb {
        Verb::Add => match serde_json::from_str(&ran.stdout) {
            Ok(result @ Value::Object(_)) => Ok(Some(result)),
            _ => Err(mute()),
        },
        Verb::Del | Verb::Check | Verb::Status | Verb::Gc => Ok(None),
    }
}

fn details_text(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(" ({details})") }
}
