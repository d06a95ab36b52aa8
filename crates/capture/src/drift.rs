//! How a difference between two listings is told.

use std::fmt::{self, Display, Formatter};

use crate::TABLE;

/// One difference between the reference and what was observed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Drift {
    /// Where it is.
    pub place: Place,
    /// What is wrong there.
    pub deviation: Deviation,
}

/// Something that a listing shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Our table as a whole, by its flags.
    Table,
    /// A named set, by its type and flags.
    Set(String),
    /// An element of a named set, in nft's JSON.
    Element {
        /// The set.
        set: String,
        /// The element.
        element: String,
    },
    /// A chain, by its type, hook, priority and policy.
    Chain(String),
    /// A rule.
    Rule {
        /// The chain.
        chain: String,
        /// Counted from 1, in the listing that has the rule; in the reference if both do.
        position: usize,
        /// The rule's comment, which in our rules is the reason it is there.
        comment: Option<String>,
    },
    /// An object of a kind that we never make, as "kind name".
    Other(String),
}

/// What is wrong with something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deviation {
    /// The reference has it, the kernel does not.
    Missing,
    /// The kernel has it, the reference does not.
    Unexpected,
    /// Both have it, at different places of the same chain.
    Moved,
    /// Both have it, with different contents in nft's JSON.
    Changed {
        /// According to the reference.
        expected: String,
        /// According to the kernel.
        found: String,
    },
}

impl Display for Drift {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.deviation)
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => write!(f, "table {TABLE}"),
            Self::Set(name) => write!(f, "set {name}"),
            Self::Element { set, element } => write!(f, "element {element} of set {set}"),
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Rule { chain, position, comment: Some(comment) } => {
                write!(f, "rule {position} of chain {chain} ({comment})")
            }
            Self::Rule { chain, position, comment: None } => {
                write!(f, "rule {position} of chain {chain}")
            }
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl Display for Deviation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Unexpected => f.write_str("does not belong there"),
            Self::Moved => f.write_str("is out of order"),
            Self::Changed { expected, found } => {
                write!(f, "was changed: {expected} expected, {found} found")
            }
        }
    }
}
