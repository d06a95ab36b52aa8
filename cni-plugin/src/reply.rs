//! What the runtime gets on standard output.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::agent::AgentError;
use crate::config::CniVersion;
use crate::invocation::InvocationError;
use crate::netns::NetnsError;

/// A success.
#[derive(Debug)]
pub enum Answer {
    /// ADD: what the plugins before us made.
    Result(Box<RawValue>),
    /// VERSION.
    Versions {
        /// The version of the question.
        cni_version: String,
    },
    /// CHECK, DEL, STATUS and GC succeed without a word.
    Nothing,
}

/// A failure, as section "Error" of the specification wants it.
#[derive(Debug)]
pub struct Failure {
    /// The specification's number, or one of ours from 100 on.
    pub code: u32,
    /// One line that names the subject and the step.
    pub message: String,
    /// What to do about it.
    pub details: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionsJson<'a> {
    cni_version: &'a str,
    supported_versions: [&'static str; CniVersion::ALL.len()],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureJson<'a> {
    cni_version: &'static str,
    code: u32,
    msg: &'a str,
    details: &'a str,
}

impl Answer {
    /// The text for standard output.
    pub fn render(&self) -> String {
        match self {
            Self::Result(raw) => raw.get().to_owned(),
            Self::Versions { cni_version } => json(&VersionsJson {
                cni_version,
                supported_versions: CniVersion::ALL.map(CniVersion::name),
            }),
            Self::Nothing => String::new(),
        }
    }
}

impl Failure {
    /// The text for standard output.
    pub fn render(&self, cni_version: CniVersion) -> String {
        json(&FailureJson {
            cni_version: cni_version.name(),
            code: self.code,
            msg: &self.message,
            details: &self.details,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (CNI code {})", self.message, self.code)
    }
}

impl From<InvocationError> for Failure {
    fn from(error: InvocationError) -> Self {
        let details = match &error {
            InvocationError::Config(_) => "correct the entry of sluice-cni in the conflist",
            _ => "this is between the container runtime and the plugin: the pod is not at fault",
        };
        Self { code: error.code(), message: error.to_string(), details: details.to_owned() }
    }
}

impl From<NetnsError> for Failure {
    fn from(error: NetnsError) -> Self {
        let details = match &error {
            NetnsError::Open { .. } => {
                "the container ended meanwhile, or the runtime's path is wrong"
            }
            NetnsError::NotNetns { .. } => "the runtime passed the path of something else",
            NetnsError::Own { .. } => "containers on the node's own network are never captured",
        };
        Self { code: NetnsError::CODE, message: error.to_string(), details: details.to_owned() }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self { code: error.code(), message: error.to_string(), details: error.advice().to_owned() }
    }
}

/// Writes the answer.
///
/// # Errors
/// The runtime hung up, most likely because it gave up on us.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always become JSON")
}
