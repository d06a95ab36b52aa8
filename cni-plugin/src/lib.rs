//! The CNI plugin of Sluice, chained after the primary plugin. Container runtimes execute
//! it for every pod that starts or ends on the node; it asks the node agent and answers
//! as the CNI specification (1.1.0) wants.
//!
//! ```text
//! runtime ─ environment, stdin ─► invocation, config ─► verbs ─► agent ─► node agent
//!         ◄─ stdout: prevResult or error JSON ── reply ◄───┘
//! ```
//!
//! It decides nothing but who need not be asked: pods of the excluded namespaces, whose
//! list stands in the plugin's own conflist entry, containers that are no pods, and, where
//! the operator wants it, pods that an agent which is away has written down as being outside
//! the mesh. It has no state and speaks to nothing but one Unix socket, because whatever else
//! it needed could be missing while a node boots. Standard output carries the answer and
//! nothing else; the log goes to standard error and to one bounded file.

mod agent;
pub mod cni_args;
pub mod config;
pub mod invocation;
pub mod journal;
mod known;
mod netns;
mod node_verbs;
pub mod prev_result;
pub mod reply;
mod verbs;

use crate::invocation::Invocation;
use crate::journal::Journal;
use crate::reply::{Answer, Failure};

/// Does what the runtime asks.
///
/// # Errors
/// [`Failure`], which is the runtime's answer then.
pub fn answer(asked: Invocation, journal: &Journal) -> Result<Answer, Failure> {
    match asked {
        Invocation::Version { cni_version } => Ok(Answer::Versions { cni_version }),
        Invocation::Add(attached) => verbs::add(attached, journal),
        Invocation::Check(attached) => verbs::check(&attached, journal),
        Invocation::Del(detached) => {
            verbs::del(&detached, journal);
            Ok(Answer::Nothing)
        }
        Invocation::Status(settings) => node_verbs::status(&settings, journal),
        Invocation::Gc(known) => node_verbs::gc(known, journal),
    }
}
