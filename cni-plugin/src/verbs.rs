//! The verbs about one container: who must be asked, and what the agent's answer means to the runtime.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use plugin_api::{Outcome, Request, VERSION, Verb};

use crate::agent::{self, AgentError};
use crate::cni_args::Pod;
use crate::config::{Settings, WhenAgentAbsent};
use crate::invocation::{Attached, Attachment, Detached};
use crate::journal::Journal;
use crate::known;
use crate::netns::{self, NetnsError};
use crate::reply::{Answer, Failure};

/// DEL is answered within a second, so that a node without an agent can be drained.
const DEL_PATIENCE: Duration = Duration::from_millis(800);

/// Captures the pod, if it belongs to the mesh, before its containers start.
///
/// # Errors
/// [`Failure`] whenever the pod might belong to the mesh and is not known to be captured.
pub fn add(attached: Attached, journal: &Journal) -> Result<Answer, Failure> {
    judge(&attached, Verb::Add, journal)?;
    Ok(Answer::Result(attached.prev_result.raw))
}

/// Asks whether the pod is still as ADD left it.
///
/// # Errors
/// [`Failure`] when it is not, or when nobody can tell.
pub fn check(attached: &Attached, journal: &Journal) -> Result<Answer, Failure> {
    judge(attached, Verb::Check, journal)?;
    Ok(Answer::Nothing)
}

/// Tells the agent that the pod is gone. An agent that cannot be told finds out by
/// itself, so this never fails.
pub fn del(detached: &Detached, journal: &Journal) {
    let Detached { attachment, netns, settings } = detached;
    let Some(pod) = &attachment.pod else { return };
    let request = request(Verb::Del, attachment, pod, netns.as_deref());
    match agent::ask(&settings.agent_socket, DEL_PATIENCE, &request, None) {
        Ok(Outcome::Done) => journal.say("done"),
        Ok(Outcome::Error { message, .. }) => journal.say(message),
        Ok(other) => journal.say(format_args!("unexpected answer {other:?}")),
        Err(error) => journal.say(error),
    }
}

/// ADD and CHECK: passes whom we need not ask about, and asks about the rest.
fn judge(attached: &Attached, verb: Verb, journal: &Journal) -> Result<(), Failure> {
    let netns = netns::open(&attached.netns);
    if let Err(own @ NetnsError::Own { .. }) = netns {
        return Err(own.into());
    }
    let Attached { attachment, settings, prev_result, .. } = attached;
    let Some(pod) = asked_about(attachment, settings, journal) else {
        return Ok(());
    };
    let netns = netns?;
    let mut request = request(verb, attachment, pod, Some(&attached.netns));
    request.ips.clone_from(&prev_result.ips);
    match ask(settings, &request, netns.as_fd()) {
        Ok(outcome) => accept(outcome, verb, pod, journal),
        Err(error) if verb == Verb::Add && error.is_silence() => {
            without_agent(error, settings, pod, journal)
        }
        Err(error) => Err(error.into()),
    }
}

/// The pod, unless it is in an excluded namespace, or none at all.
fn asked_about<'a>(
    attachment: &'a Attachment,
    settings: &Settings,
    journal: &Journal,
) -> Option<&'a Pod> {
    let Some(pod) = &attachment.pod else {
        journal.say("not a pod (no K8S_POD_NAME in CNI_ARGS): passed through");
        return None;
    };
    if settings.exclude_namespaces.contains(&pod.namespace) {
        journal.say("namespace is excluded, passed through");
        return None;
    }
    Some(pod)
}

fn ask(
    settings: &Settings,
    request: &Request,
    netns: BorrowedFd<'_>,
) -> Result<Outcome, AgentError> {
    agent::ask(&settings.agent_socket, settings.patience(), request, Some(netns))
}

/// ADD while nobody decides: whom the agent has written down as outside the mesh may start, if
/// the operator wants that. Nobody else ever does.
fn without_agent(
    error: AgentError,
    settings: &Settings,
    pod: &Pod,
    journal: &Journal,
) -> Result<(), Failure> {
    if settings.when_agent_absent == WhenAgentAbsent::Closed {
        return Err(error.into());
    }
    match known::age_if_outside(&settings.agent_socket, pod) {
        Ok(age) => {
            let age = age.as_secs();
            journal.say(format_args!(
                "passed through without the agent's word: {error}; {age} s ago it knew the pod to \
                 be outside the mesh (whenAgentAbsent is allow-known)"
            ));
            Ok(())
        }
        Err(reason) => {
            let failure = Failure::from(error);
            Err(Failure { message: format!("{}; {reason}", failure.message), ..failure })
        }
    }
}

fn accept(outcome: Outcome, verb: Verb, pod: &Pod, journal: &Journal) -> Result<(), Failure> {
    match outcome {
        Outcome::Captured => journal.say("captured"),
        Outcome::NotInMesh { reason } => {
            journal.say(format_args!("not in the mesh: {reason}"));
        }
        Outcome::Error { code, message, details } => {
            return Err(Failure { code: code.cni(), message, details });
        }
        other @ (Outcome::Done | Outcome::Ready { .. } | Outcome::Collected { .. }) => {
            let who = format!("{}/{}", pod.namespace, pod.name);
            let message = format!("pod {who}: the node agent answered {verb:?} with {other:?}");
            return Err(Failure { code: 11, message, details: agent::MISMATCH.to_owned() });
        }
    }
    Ok(())
}

fn request(verb: Verb, attachment: &Attachment, pod: &Pod, netns: Option<&Path>) -> Request {
    Request {
        version: VERSION,
        verb,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        network: Some(attachment.network.clone()),
        netns_path: netns.map(|path| path.display().to_string()),
        ips: Vec::new(),
    }
}
