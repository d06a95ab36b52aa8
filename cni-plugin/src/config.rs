//! The network configuration that comes on standard input. Pure.
//!
//! Only what we use is looked at. Everything else, keys of later versions included, is
//! kept as the raw text it came as, so that values of prevResult leave as they arrived.

use std::collections::BTreeMap;

use plugin_api::AttachmentKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::prev_result::PrevResult;

mod settings;

pub use settings::{LogFile, Settings, WhenAgentAbsent};

/// Versions of the CNI specification that the plugin speaks, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// The first with lists of plugins.
    V0_3_1,
    /// The first with CHECK.
    V0_4_0,
    /// The first whose addresses do not tell their family.
    V1_0_0,
    /// The first with STATUS and GC.
    V1_1_0,
}

impl CniVersion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The first.
    pub const OLDEST: Self = Self::V0_3_1;
    /// The last, in which errors are written when the configuration names none of them.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of this name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing came.
    #[error("standard input is empty where the network configuration was expected")]
    Empty,
    /// What came is no JSON object.
    #[error("the network configuration is not a JSON object: {0}")]
    NotJson(#[source] serde_json::Error),
    /// A version we do not speak.
    #[error("cniVersion {found:?} is not supported, only {}", CniVersion::ALL.map(CniVersion::name).join(", "))]
    Version {
        /// As it was written.
        found: String,
    },
    /// A key that must be there.
    #[error("{key} is missing from the network configuration: {reason}")]
    Missing {
        /// Which one.
        key: &'static str,
        /// Why it is needed.
        reason: &'static str,
    },
    /// The list is the one in which pods wait for a primary plugin.
    #[error(
        "no primary CNI plugin has a network configuration on this node yet: the pod waits for one"
    )]
    NoPrimary,
    /// A key's value is not usable.
    #[error("{key} is {value}: {reason}")]
    Bad {
        /// Which one.
        key: &'static str,
        /// What was found, as JSON.
        value: String,
        /// The rule that is broken.
        reason: String,
    },
}

impl ConfigError {
    /// The specification's number ("Well-known Error Codes").
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            // Try again.
            Self::NoPrimary => 11,
            Self::Empty => 5,
            Self::NotJson(_) => 6,
            Self::Missing { .. } | Self::Bad { .. } => 7,
        }
    }
}

/// A network configuration whose version is supported and whose name is one.
#[derive(Debug)]
pub struct Document {
    keys: Keys,
    network: String,
    cni_version: CniVersion,
}

/// Of which file the node agent has made the list that we stand in. An empty name: of none, for
/// there is no primary plugin yet, and pods are to wait in it.
const LIST_OF: &str = "listOf";

type Keys = BTreeMap<String, Box<RawValue>>;

/// One attachment, as the specification writes it.
#[derive(Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl From<ValidAttachment> for AttachmentKey {
    fn from(ValidAttachment { container_id, ifname }: ValidAttachment) -> Self {
        Self { container_id, ifname }
    }
}

impl Document {
    /// Reads standard input.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(input: &[u8]) -> Result<Self, ConfigError> {
        let keys = parse_keys(input)?;
        let network: String = required(&keys, "name", "every network has one")?;
        if !is_identifier(&network) {
            return Err(bad(&keys, "name", IDENTIFIER_RULE));
        }
        let kind: String = required(&keys, "type", "it names the plugin")?;
        if kind.is_empty() {
            return Err(bad(&keys, "type", "empty"));
        }
        // The specification's first versions had no such key.
        let found = optional(&keys, "cniVersion")?.unwrap_or_else(|| "0.1.0".to_owned());
        let cni_version = CniVersion::from_name(&found).ok_or(ConfigError::Version { found })?;
        Ok(Self { keys, network, cni_version })
    }

    /// The version of the configuration, in which to answer.
    pub fn cni_version(&self) -> CniVersion {
        self.cni_version
    }

    /// Our own keys; absent ones have defaults.
    ///
    /// # Errors
    /// [`ConfigError::Bad`].
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        settings::read(&self.keys)
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// GC: the attachments that the runtime still knows. Runtimes that are written in Go
    /// send `null` for none. A list that is missing is not taken for an empty one: every pod
    /// of the node would lose its place in the mesh.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn valid_attachments(&self) -> Result<Vec<AttachmentKey>, ConfigError> {
        // The text of 1.1.0 has both names, and runtimes send both.
        const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        const NEED: &str = "GC ends what is not in it";
        let key = KEYS.into_iter().find(|key| self.keys.contains_key(*key));
        let key = key.ok_or(ConfigError::Missing { key: KEYS[0], reason: NEED })?;
        let listed: Option<Vec<ValidAttachment>> = optional(&self.keys, key)?;
        Ok(listed.unwrap_or_default().into_iter().map(AttachmentKey::from).collect())
    }

    /// What the plugins before this one made.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] when we are the first plugin of the list,
    /// [`ConfigError::NoPrimary`] when that is so until there is another one, and
    /// [`ConfigError::Bad`] when the addresses in it cannot be read.
    pub fn prev_result(&self) -> Result<PrevResult, ConfigError> {
        const KEY: &str = "prevResult";
        const NEED: &str = "this plugin must be chained after the one that makes the interface";
        let Some(raw) = optional::<Box<RawValue>>(&self.keys, KEY)? else {
            let waits = optional::<String>(&self.keys, LIST_OF)?.is_some_and(|of| of.is_empty());
            return Err(match waits {
                true => ConfigError::NoPrimary,
                false => ConfigError::Missing { key: KEY, reason: NEED },
            });
        };
        PrevResult::read(raw, self.cni_version).map_err(|reason| bad(&self.keys, KEY, reason))
    }
}

/// The version a VERSION request was asked in. Runtimes before 1.0 send nothing.
///
/// # Errors
/// [`ConfigError`] when what came is not of that shape.
pub fn asked_version(input: &[u8]) -> Result<String, ConfigError> {
    let found = match parse_keys(input) {
        Err(ConfigError::Empty) => None,
        keys => optional(&keys?, "cniVersion")?,
    };
    Ok(found.unwrap_or_else(|| CniVersion::NEWEST.name().to_owned()))
}

/// In which version to write an error about this input, which may be any garbage.
pub fn version_for_errors(input: &[u8]) -> CniVersion {
    let keys = parse_keys(input).unwrap_or_default();
    let named = optional::<String>(&keys, "cniVersion").ok().flatten();
    named.and_then(|name| CniVersion::from_name(&name)).unwrap_or(CniVersion::NEWEST)
}

/// For messages about names that [`is_identifier`] refuses.
pub const IDENTIFIER_RULE: &str =
    "must begin with a letter or digit and continue with letters, digits, `_`, `.` and `-`";

/// The specification's rule for network names and container ids.
pub fn is_identifier(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(letter) && text.chars().all(|c| letter(c) || "_.-".contains(c))
}

fn parse_keys(input: &[u8]) -> Result<Keys, ConfigError> {
    if input.trim_ascii().is_empty() {
        return Err(ConfigError::Empty);
    }
    serde_json::from_slice(input).map_err(ConfigError::NotJson)
}

/// `null` counts as absent, as it does for the runtimes' own decoder.
fn optional<T: DeserializeOwned>(keys: &Keys, key: &'static str) -> Result<Option<T>, ConfigError> {
    let Some(value) = keys.get(key) else {
        return Ok(None);
    };
    serde_json::from_str(value.get()).map_err(|error| bad(keys, key, error.to_string()))
}

fn required<T: DeserializeOwned>(
    keys: &Keys,
    key: &'static str,
    reason: &'static str,
) -> Result<T, ConfigError> {
    optional(keys, key)?.ok_or(ConfigError::Missing { key, reason })
}

fn bad(keys: &Keys, key: &'static str, reason: impl Into<String>) -> ConfigError {
    let value = keys.get(key).map_or("absent", |value| value.get());
    let shown = value.chars().take(200).collect();
    ConfigError::Bad { key, value: shown, reason: reason.into() }
}

#[cfg(test)]
mod tests;
