//! The verbs about the node: STATUS and GC.

use std::thread;
use std::time::{Duration, Instant};

use plugin_api::{Code, GcRequest, Outcome, StatusRequest};

use crate::agent::{self, AgentError};
use crate::config::Settings;
use crate::invocation::Known;
use crate::journal::Journal;
use crate::reply::{Answer, Failure};

/// How often STATUS looks whether the agent is back.
const LOOK: Duration = Duration::from_millis(200);

/// Whether an ADD would be served now.
///
/// An agent that is away is waited for: a runtime takes a failure to the kubelet, which calls
/// the node not ready at once, and its pods are then taken out of their Services. An agent
/// that restarts within the deadline must not cost that.
///
/// # Errors
/// [`Failure`] with code 50 or 51, whatever the reason is: the specification has no others
/// for STATUS.
pub fn status(settings: &Settings, journal: &Journal) -> Result<Answer, Failure> {
    match ask_until_there(settings) {
        Ok(Outcome::Ready { note }) => {
            if !note.is_empty() {
                journal.say(format_args!("ready, but {note}"));
            }
            Ok(Answer::Nothing)
        }
        Ok(Outcome::Error { code, message, details }) => {
            let code = match code {
                Code::NotReady | Code::NotReadyImpaired => code,
                _ => Code::NotReady,
            };
            Err(Failure { code: code.cni(), message, details })
        }
        Ok(other) => Err(Failure { code: Code::NotReady.cni(), ..unexpected("STATUS", &other) }),
        Err(error) => Err(Failure { code: Code::NotReady.cni(), ..error.into() }),
    }
}

/// Has the agent let go of what the runtime does not know any more.
///
/// # Errors
/// [`Failure`] when something of it is left, or when nobody can tell: GC is repeated by the
/// runtime, and a success would say that there is nothing to come back for.
pub fn gc(known: Known, journal: &Journal) -> Result<Answer, Failure> {
    let Known { network, valid, settings } = known;
    let request = GcRequest::new(network, valid);
    match agent::ask(&settings.agent_socket, settings.patience(), &request, None)? {
        Outcome::Collected { attachments } => {
            journal.say(format_args!("{attachments} of network {} let go", request.network));
            Ok(Answer::Nothing)
        }
        Outcome::Error { code, message, details } => {
            Err(Failure { code: code.cni(), message, details })
        }
        other => Err(unexpected("GC", &other)),
    }
}

fn ask_until_there(settings: &Settings) -> Result<Outcome, AgentError> {
    let deadline = Instant::now() + settings.patience();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match agent::ask(&settings.agent_socket, left, &StatusRequest::new(), None) {
            Err(error) if error.is_absence() && left > LOOK => thread::sleep(LOOK),
            answer => return answer,
        }
    }
}

fn unexpected(verb: &str, outcome: &Outcome) -> Failure {
    let message = format!("the node agent answered {verb} with {outcome:?}");
    Failure { code: Code::TryAgain.cni(), message, details: agent::MISMATCH.to_owned() }
}
