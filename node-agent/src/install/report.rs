//! What people are told about the conflist.

use std::fmt;
use std::mem::{Discriminant, discriminant};

/// Something that whoever runs the node may want to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// No primary plugin has a usable file.
    NoPrimary,
    /// A file that no runtime can use.
    Unusable {
        /// Its name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The list is made of one file of several.
    Several {
        /// The one.
        chosen: String,
        /// The others, which runtimes do not use.
        others: Vec<String>,
    },
    /// Another file sorts before our own list: our entry is appended to it.
    SortsFirst {
        /// The file.
        file: String,
    },
    /// A plugin in this file calls ours by itself.
    Nested {
        /// The file.
        file: String,
    },
    /// Multus sorts first, calls us not, and has a file in which no list may stand.
    MultusAlone {
        /// The file.
        file: String,
    },
    /// Multus calls this file by its path: our entry is appended to it.
    Called {
        /// The file.
        file: String,
        /// Where Multus stands.
        by: String,
    },
    /// The runtime takes a file that we cannot read.
    Blind {
        /// The file.
        file: String,
    },
    /// The file of which our list is made is gone or broken: the list stays as it was.
    Kept {
        /// The file.
        file: String,
    },
    /// Our plugin cannot be called in the network's version.
    Unspoken {
        /// The file.
        file: String,
        /// The version.
        version: String,
    },
    /// The plugin's program is not where the runtime looks for it.
    NoProgram {
        /// Where it was looked for.
        folders: String,
    },
    /// A file operation failed.
    Failed {
        /// Which one, and the system's answer.
        what: String,
    },
}

impl Report {
    /// Whether pods start without us, or none starts, until somebody does something.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Unspoken { .. }
            | Self::MultusAlone { .. }
            | Self::Blind { .. }
            | Self::NoProgram { .. }
            | Self::Failed { .. } => true,
            Self::NoPrimary
            | Self::Unusable { .. }
            | Self::Several { .. }
            | Self::SortsFirst { .. }
            | Self::Nested { .. }
            | Self::Called { .. }
            | Self::Kept { .. } => false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrimary => write!(
                f,
                "no primary plugin has a network configuration on this node yet: pods wait for one"
            ),
            Self::Unusable { file, why } => {
                write!(f, "network configuration {file} cannot be used: {why}")
            }
            Self::Several { chosen, others } => write!(
                f,
                "several network configurations: {chosen} sorts first and is used, not {}",
                others.join(", ")
            ),
            Self::SortsFirst { file } => write!(
                f,
                "network configuration {file} sorts before our own list and is used instead: \
                 our entry has to stand there, and may be lost for moments when it is written"
            ),
            Self::Nested { file } => {
                write!(f, "a plugin in network configuration {file} calls ours by itself")
            }
            Self::MultusAlone { file } => write!(
                f,
                "network configuration {file} sorts first, and Multus, which it calls, does not \
                 call our plugin: pods start outside the mesh; let Multus delegate to our own \
                 list (INSTALL_CNI=own), or give it a *.conflist"
            ),
            Self::Called { file, by } => write!(
                f,
                "Multus in {by} calls network configuration {file} by its path: our entry has to \
                 stand there, and may be lost for moments when it is written; a restart of Multus \
                 makes it call our own list"
            ),
            Self::Blind { file } => write!(
                f,
                "the container runtime takes network configuration {file}, which we cannot read: \
                 our plugin is not put before it, and pods may start outside the mesh; let the \
                 node agent read it"
            ),
            Self::Kept { file } => write!(
                f,
                "network configuration {file}, of which our list is made, is gone or broken: \
                 the list stays as it was until there is a usable one"
            ),
            Self::Unspoken { file, version } => write!(
                f,
                "network configuration {file} has cniVersion {version}, in which our plugin \
                 cannot be called: pods start outside the mesh; set 0.3.1 or later"
            ),
            Self::NoProgram { folders } => write!(
                f,
                "the plugin's program is not in {folders}: nothing is written, or no pod could \
                 start; put it there or set CNI_BIN_DIR"
            ),
            Self::Failed { what } => f.write_str(what),
        }
    }
}

impl Report {
    /// What it is about, whatever else it says: the kind of thing, and which file.
    #[must_use]
    pub fn about(&self) -> (Discriminant<Self>, &str) {
        let file = match self {
            Self::Unusable { file, .. }
            | Self::SortsFirst { file }
            | Self::Nested { file }
            | Self::MultusAlone { file }
            | Self::Called { file, .. }
            | Self::Blind { file }
            | Self::Kept { file }
            | Self::Unspoken { file, .. } => file,
            Self::Several { chosen, .. } => chosen,
            Self::NoPrimary | Self::NoProgram { .. } | Self::Failed { .. } => "",
        };
        (discriminant(self), file)
    }
}
