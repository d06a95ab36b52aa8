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
mod cni_args;
mod config;
mod invocation;
mod journal;
mod known;
mod netns;
mod node_verbs;
mod prev_result;
mod reply;
mod verbs;

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use crate::invocation::{Environment, Invocation, InvocationError};
use crate::journal::Journal;
use crate::reply::{Answer, Failure};

/// No runtime sends more; it keeps a mistake from filling the memory.
const MAX_STDIN: u64 = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let stdin = read_stdin();
    let newest = config::CniVersion::NEWEST;
    let cni_version = stdin.as_deref().map_or(newest, config::version_for_errors);
    let invocation = Invocation::parse(&environment(), stdin);
    let journal = invocation.as_ref().map_or_else(|_| Journal::of_nobody(), Journal::of);
    let answered = invocation.map_err(Failure::from).and_then(|asked| answer(asked, &journal));
    let (text, code) = match answered {
        Ok(answer) => (answer.render(), ExitCode::SUCCESS),
        Err(failure) => {
            journal.say(&failure);
            (failure.render(cni_version), ExitCode::FAILURE)
        }
    };
    match reply::print(&text) {
        Ok(()) => code,
        Err(error) => {
            journal.say(format_args!("write the answer to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn answer(asked: Invocation, journal: &Journal) -> Result<Answer, Failure> {
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

#[expect(clippy::disallowed_methods, reason = "the environment is the plugin's input")]
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("CNI_"))
        .collect()
}

fn read_stdin() -> Result<Vec<u8>, InvocationError> {
    let mut input = Vec::new();
    // Whoever types the command by hand shall get an answer, not a silent wait.
    if !io::stdin().is_terminal() {
        let limited = &mut io::stdin().lock().take(MAX_STDIN + 1);
        limited.read_to_end(&mut input).map_err(InvocationError::ReadStdin)?;
    }
    if input.len() as u64 > MAX_STDIN {
        return Err(InvocationError::ReadStdin(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(input)
}
