//! Our own part of the configuration. Pure.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, Keys, bad, optional};

/// Our own part of the configuration: the conflist entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `agentSocket`: where the node agent listens.
    pub agent_socket: PathBuf,
    /// `excludeNamespaces`: their pods start without the agent being asked.
    pub exclude_namespaces: Vec<String>,
    /// `timeoutSeconds`: within this time every verb is answered, whatever the agent
    /// does. Runtimes give up after minutes, but one that waits keeps a pod from its
    /// next try.
    pub timeout: Duration,
    /// `whenAgentAbsent`: which pods start while the agent does not answer.
    pub when_agent_absent: WhenAgentAbsent,
    /// `logFile` and `logMaxBytes`: where the plugin tells its story besides standard error.
    pub log_file: Option<LogFile>,
}

/// Which pods start while the agent does not answer, besides those of excluded namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAgentAbsent {
    /// None.
    #[default]
    Closed,
    /// Those that the agent has written down as being outside the mesh.
    AllowKnown,
}

/// A file of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is. The last full one lies beside it.
    pub path: PathBuf,
    /// When it is full.
    pub max_bytes: u64,
}

impl Settings {
    /// How long the agent is waited for: the runtime's clock started before ours, and
    /// writing the answer takes time too.
    pub fn patience(&self) -> Duration {
        self.timeout.mul_f64(0.9)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent_socket: plugin_api::DEFAULT_SOCKET.into(),
            exclude_namespaces: Vec::new(),
            timeout: Duration::from_secs(5),
            when_agent_absent: WhenAgentAbsent::default(),
            log_file: None,
        }
    }
}

/// Bounds of `logMaxBytes`, and what counts without it.
const MIN_LOG: u64 = 64 * 1024;
const MAX_LOG: u64 = 1024 * 1024 * 1024;
const DEFAULT_LOG: u64 = 1024 * 1024;

/// Our own keys; absent ones have defaults.
///
/// # Errors
/// [`ConfigError::Bad`].
pub fn read(keys: &Keys) -> Result<Settings, ConfigError> {
    let defaults = Settings::default();
    let agent_socket = match optional::<PathBuf>(keys, "agentSocket")? {
        // The kernel's limit for socket paths is 108 bytes with a final zero.
        Some(path) if !path.is_absolute() || path.as_os_str().len() > 107 => {
            return Err(bad(keys, "agentSocket", "not an absolute path below 108 bytes"));
        }
        Some(path) => path,
        None => defaults.agent_socket,
    };
    let timeout = match optional::<u64>(keys, "timeoutSeconds")? {
        Some(seconds @ 1..=60) => Duration::from_secs(seconds),
        Some(_) => return Err(bad(keys, "timeoutSeconds", "not between 1 and 60")),
        None => defaults.timeout,
    };
    let exclude_namespaces = optional(keys, "excludeNamespaces")?;
    Ok(Settings {
        agent_socket,
        exclude_namespaces: exclude_namespaces.unwrap_or(defaults.exclude_namespaces),
        timeout,
        when_agent_absent: optional(keys, "whenAgentAbsent")?.unwrap_or_default(),
        log_file: log_file(keys)?,
    })
}

fn log_file(keys: &Keys) -> Result<Option<LogFile>, ConfigError> {
    let max_bytes = match optional::<u64>(keys, "logMaxBytes")? {
        Some(bytes @ MIN_LOG..=MAX_LOG) => bytes,
        Some(_) => {
            return Err(bad(keys, "logMaxBytes", "not between 64 KiB and 1 GiB"));
        }
        None => DEFAULT_LOG,
    };
    match optional::<PathBuf>(keys, "logFile")? {
        Some(path) if !path.is_absolute() || path.file_name().is_none() => {
            Err(bad(keys, "logFile", "not the absolute path of a file"))
        }
        path => Ok(path.map(|path| LogFile { path, max_bytes })),
    }
}
