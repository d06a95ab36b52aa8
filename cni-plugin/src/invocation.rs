//! What the runtime asks: the environment and the network configuration, turned into a
//! typed [`Invocation`] or refused. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use plugin_api::AttachmentKey;

use crate::cni_args::Pod;
use crate::config::{self, CniVersion, ConfigError, Document, Settings};
use crate::prev_result::PrevResult;

/// The `CNI_*` variables.
pub type Environment = BTreeMap<String, OsString>;

/// One execution of the plugin.
#[derive(Debug)]
pub enum Invocation {
    /// Which versions of the specification are spoken?
    Version {
        /// The version that the question was asked in, to be repeated in the answer.
        cni_version: String,
    },
    /// A container's interface was made.
    Add(Attached),
    /// Is a container still as ADD left it?
    Check(Attached),
    /// A container's interface goes away.
    Del(Detached),
    /// Would an ADD be served now?
    Status(Settings),
    /// What is left of attachments that the runtime does not know any more?
    Gc(Known),
}

/// Everything that ADD and CHECK must be told.
#[derive(Debug)]
pub struct Attached {
    /// Which interface of which container.
    pub attachment: Attachment,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// What the plugins before this one made.
    pub prev_result: PrevResult,
    /// Our own part of the configuration.
    pub settings: Settings,
}

/// What DEL can count on: the namespace and everything in it may be gone.
#[derive(Debug)]
pub struct Detached {
    /// Which interface of which container.
    pub attachment: Attachment,
    /// `CNI_NETNS`, where the runtime still knows it.
    pub netns: Option<PathBuf>,
    /// Our own part of the configuration.
    pub settings: Settings,
}

/// GC: what the runtime still knows of a network.
#[derive(Debug)]
pub struct Known {
    /// The network.
    pub network: String,
    /// Its attachments.
    pub valid: Vec<AttachmentKey>,
    /// Our own part of the configuration.
    pub settings: Settings,
}

/// The specification's key of an attachment, and the pod it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `name` of the configuration.
    pub network: String,
    /// `None` when the container is no pod.
    pub pod: Option<Pod>,
}

/// Why an invocation was refused.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// Variables that the command needs are not set, or empty.
    #[error("required environment variables missing: {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    /// A variable does not hold what the specification allows.
    #[error("{variable} is {value:?}: {reason}")]
    Bad {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// The rule that is broken.
        reason: &'static str,
    },
    /// `CNI_COMMAND` is none of the specification's.
    #[error("CNI_COMMAND is {0:?}, which no version of the specification knows")]
    UnknownCommand(String),
    /// The configuration's version does not have this verb yet.
    #[error("cniVersion {} has no {verb}, which came with {}", .config.name(), .since.name())]
    TooOld {
        /// What was asked for.
        verb: String,
        /// The version of the configuration.
        config: CniVersion,
        /// The first version with this verb.
        since: CniVersion,
    },
    /// Standard input could not be read.
    #[error("read the network configuration from standard input: {0}")]
    ReadStdin(#[source] io::Error),
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl InvocationError {
    /// The specification's number ("Well-known Error Codes").
    pub fn code(&self) -> u32 {
        match self {
            Self::TooOld { .. } => 1,
            Self::Missing(_) | Self::Bad { .. } | Self::UnknownCommand(_) => 4,
            Self::ReadStdin(_) => 5,
            Self::Config(error) => error.code(),
        }
    }
}

impl Invocation {
    /// Reads the environment, then what came on standard input.
    ///
    /// # Errors
    /// [`InvocationError`], which names the variable or key.
    pub fn parse(
        environment: &Environment,
        stdin: Result<Vec<u8>, InvocationError>,
    ) -> Result<Self, InvocationError> {
        let variables = Variables(environment);
        let command = variables.required("CNI_COMMAND")?;
        match command.as_str() {
            "VERSION" => Ok(Self::Version { cni_version: config::asked_version(&stdin?)? }),
            "ADD" => attached(&variables, stdin, CniVersion::OLDEST).map(Self::Add),
            "CHECK" => attached(&variables, stdin, CniVersion::V0_4_0).map(Self::Check),
            "DEL" => detached(&variables, stdin).map(Self::Del),
            "STATUS" | "GC" => of_the_node(&command, &Document::parse(&stdin?)?),
            _ => Err(InvocationError::UnknownCommand(command)),
        }
    }
}

/// The verbs that are not about one container.
fn of_the_node(command: &str, document: &Document) -> Result<Invocation, InvocationError> {
    known_since(CniVersion::V1_1_0, command, document)?;
    let settings = document.settings()?;
    if command == "STATUS" {
        return Ok(Invocation::Status(settings));
    }
    let (network, valid) = (document.network().to_owned(), document.valid_attachments()?);
    Ok(Invocation::Gc(Known { network, valid, settings }))
}

fn attached(
    variables: &Variables<'_>,
    stdin: Result<Vec<u8>, InvocationError>,
    since: CniVersion,
) -> Result<Attached, InvocationError> {
    variables.all_present(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])?;
    let netns = variables.required("CNI_NETNS")?.into();
    let args = variables.optional("CNI_ARGS")?.unwrap_or_default();
    let pod = Pod::from_args(&args).map_err(|reason| bad("CNI_ARGS", &args, reason))?;
    let key = variables.attachment()?;
    let document = Document::parse(&stdin?)?;
    let attachment = Attachment::new(key, &document, pod);
    known_since(since, "CHECK", &document)?;
    Ok(Attached {
        attachment,
        netns,
        prev_result: document.prev_result()?,
        settings: document.settings()?,
    })
}

/// DEL must get through wherever it can: what only ADD needs is not looked at, and a
/// mistake in our own settings or in `CNI_ARGS` has already failed the ADD, loudly.
fn detached(
    variables: &Variables<'_>,
    stdin: Result<Vec<u8>, InvocationError>,
) -> Result<Detached, InvocationError> {
    variables.all_present(&["CNI_CONTAINERID", "CNI_IFNAME"])?;
    let args = variables.optional("CNI_ARGS").ok().flatten().unwrap_or_default();
    let key = variables.attachment()?;
    let netns = variables.optional("CNI_NETNS").ok().flatten().map(PathBuf::from);
    let document = Document::parse(&stdin?)?;
    let attachment = Attachment::new(key, &document, Pod::from_args(&args).ok().flatten());
    Ok(Detached { attachment, netns, settings: document.settings().unwrap_or_default() })
}

fn known_since(since: CniVersion, verb: &str, document: &Document) -> Result<(), InvocationError> {
    let config = document.cni_version();
    if config < since {
        return Err(InvocationError::TooOld { verb: verb.to_owned(), config, since });
    }
    Ok(())
}

impl Attachment {
    fn new(key: AttachmentKey, document: &Document, pod: Option<Pod>) -> Self {
        let AttachmentKey { container_id, ifname } = key;
        Self { container_id, ifname, network: document.network().to_owned(), pod }
    }
}

struct Variables<'a>(&'a Environment);

impl Variables<'_> {
    /// An empty variable counts as a missing one: runtimes set what they do not know to
    /// the empty string.
    fn optional(&self, variable: &'static str) -> Result<Option<String>, InvocationError> {
        let Some(value) = self.0.get(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(bad(variable, &value.to_string_lossy(), "not UTF-8")),
        }
    }

    fn required(&self, variable: &'static str) -> Result<String, InvocationError> {
        self.optional(variable)?.ok_or_else(|| InvocationError::Missing(vec![variable]))
    }

    /// Names all missing ones at once.
    fn all_present(&self, needed: &[&'static str]) -> Result<(), InvocationError> {
        let is_missing = |name: &&str| self.0.get(*name).is_none_or(|value| value.is_empty());
        let missing: Vec<_> = needed.iter().copied().filter(|name| is_missing(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(InvocationError::Missing(missing)) }
    }

    fn attachment(&self) -> Result<AttachmentKey, InvocationError> {
        let container_id = self.required("CNI_CONTAINERID")?;
        let ifname = self.required("CNI_IFNAME")?;
        if !config::is_identifier(&container_id) {
            return Err(bad("CNI_CONTAINERID", &container_id, config::IDENTIFIER_RULE));
        }
        if let Err(reason) = interface_name(&ifname) {
            return Err(bad("CNI_IFNAME", &ifname, reason));
        }
        Ok(AttachmentKey { container_id, ifname })
    }
}

fn bad(variable: &'static str, value: &str, reason: &'static str) -> InvocationError {
    InvocationError::Bad { variable, value: value.to_owned(), reason }
}

/// The kernel's rules for interface names (`dev_valid_name`).
fn interface_name(name: &str) -> Result<(), &'static str> {
    if name.len() > 15 {
        Err("longer than 15 bytes")
    } else if name == "." || name == ".." {
        Err("not a name")
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        Err("contains a slash, a colon or white space")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
