//! What a run has found, in one model for both levels, and its renderings.
//!
//! ```text
//! scenarios ─► Report ─► JUnit, JSON, Markdown
//!                 JSON ─► matrix: behaviours by cluster
//! ```

mod between;
mod form;
mod json;
mod junit;
mod markdown;
pub(crate) mod matrix;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::witness::Witnessed;

pub(crate) use between::Markers;
pub(crate) use form::{cell, now, word};
pub(crate) use json::read;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where the scenarios ran.
    pub level: Level,
    /// How far the results can be believed.
    pub source: Source,
    /// The day, as `2026-08-31`.
    pub date: String,
    /// Of what.
    pub versions: Versions,
    /// The parts that were not ours, where others' were witnesses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<Witnessed>,
    /// One per scenario, in the order of running.
    pub results: Vec<Outcome>,
}

/// Where scenarios run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// Network namespaces on one machine.
    Namespaces,
    /// A Kubernetes cluster.
    Cluster,
}

/// Where results come from; never mixed in one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// A run that is repeated with every change.
    Ci,
    /// Somebody's run.
    Hand,
    /// Nobody ran anything; it is what documentation says.
    Documentation,
}

/// What was tested, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// The API server's.
    pub kubernetes: Option<String>,
    /// Name of the primary CNI plugin, with its version where that is known.
    pub cni: Option<String>,
    /// The kernels of the nodes.
    pub kernel: Option<String>,
    /// The container runtimes of the nodes.
    pub runtime: Option<String>,
    /// The implementation under test, a part each: image or version.
    pub subject: Vec<String>,
}

/// What came of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The scenario's name, for example `cluster/label-captures`.
    pub id: String,
    /// What it shows.
    pub meaning: String,
    /// Numbers of the behaviours that it covers.
    pub behaviours: Vec<u8>,
    /// How it ended.
    pub mark: Mark,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took.
    pub seconds: f32,
    /// Where the evidence of a failure is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<PathBuf>,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mark {
    /// All was as expected.
    Passed,
    /// It could not be tried here.
    Skipped,
    /// The implementation does not claim it yet.
    NotImplemented,
    /// Something was not as expected.
    Failed,
}

/// How many ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub not_implemented: usize,
}

impl Outcome {
    /// Something besides the scenarios that must hold: failed when there is a reason.
    pub(crate) fn of(id: &str, meaning: &str, reason: Option<String>) -> Self {
        Self {
            id: id.to_owned(),
            meaning: meaning.to_owned(),
            behaviours: Vec::new(),
            mark: if reason.is_some() { Mark::Failed } else { Mark::Passed },
            reason,
            seconds: 0.0,
            evidence: None,
        }
    }

    /// A run that was ended before its end: no report of it may look like a whole one.
    pub(crate) fn unfinished(level: &str, why: &str) -> Self {
        let id = format!("{level}/runs-to-its-end");
        let meaning = "every chosen scenario was run";
        Self::of(&id, meaning, Some(format!("{why}; those without a result were not run")))
    }
}

impl Report {
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for outcome in &self.results {
            *match outcome.mark {
                Mark::Passed => &mut tally.passed,
                Mark::Failed => &mut tally.failed,
                Mark::Skipped => &mut tally.skipped,
                Mark::NotImplemented => &mut tally.not_implemented,
            } += 1;
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, skipped, not_implemented } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        match not_implemented {
            0 => Ok(()),
            count => write!(f, ", {count} not implemented"),
        }
    }
}

/// A file that a report is written to, as `junit=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sink {
    form: Form,
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Junit,
    Json,
    Markdown,
}

impl FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is not junit=FILE, json=FILE or markdown=FILE");
        let (form, file) = text.split_once('=').ok_or_else(usage)?;
        let form = match form {
            "junit" => Form::Junit,
            "json" => Form::Json,
            "markdown" => Form::Markdown,
            _ => return Err(usage()),
        };
        if file.is_empty() {
            return Err(usage());
        }
        Ok(Self { form, file: file.into() })
    }
}

impl Sink {
    /// Writes the report.
    pub(crate) fn write(&self, report: &Report) -> anyhow::Result<()> {
        let text = match self.form {
            Form::Junit => junit::render(report),
            Form::Json => json::render(report)?,
            Form::Markdown => markdown::render(report),
        };
        let file = &self.file;
        std::fs::write(file, text).with_context(|| format!("write the report {}", file.display()))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A report with one scenario of each mark.
    pub(crate) fn sample() -> Report {
        let outcome = |id: &str, behaviours: &[u8], mark, reason: Option<&str>| Outcome {
            id: id.to_owned(),
            meaning: format!("what {id} shows"),
            behaviours: behaviours.to_vec(),
            mark,
            reason: reason.map(str::to_owned),
            seconds: 1.25,
            evidence: (mark == Mark::Failed).then(|| "evidence/b".into()),
        };
        Report {
            level: Level::Cluster,
            source: Source::Hand,
            date: "2026-08-31".to_owned(),
            versions: Versions {
                kubernetes: Some("v1.36.3".to_owned()),
                cni: Some("flannel 0.28.9".to_owned()),
                kernel: Some("6.18.0".to_owned()),
                runtime: Some("containerd://1.6.20".to_owned()),
                subject: vec!["sluice:dev".to_owned()],
            },
            witnessed: None,
            results: vec![
                outcome("a", &[1, 3], Mark::Passed, None),
                outcome("b", &[3], Mark::Failed, Some("expected <x>\nobserved \"y\" & z")),
                outcome("c", &[14], Mark::Skipped, Some("one node | only")),
                outcome("d", &[16], Mark::NotImplemented, Some("no such option")),
            ],
        }
    }

    #[test]
    fn sinks_are_read_from_the_command_line() {
        let sink: Sink = "junit=a=b.xml".parse().unwrap();
        assert_eq!(sink, Sink { form: Form::Junit, file: "a=b.xml".into() });
        for wrong in ["junit", "xml=a", "json=", "=a"] {
            assert!(wrong.parse::<Sink>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_mark_is_counted_for_itself() {
        let told = "1 passed, 1 failed, 1 skipped, 1 not implemented";
        assert_eq!(sample().tally().to_string(), told);
    }
}
