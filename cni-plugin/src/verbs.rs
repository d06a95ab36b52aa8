//! The verbs about one container: who must be asked, and what the agent's answer means to the runtime.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use plugin_api::{Outcome, Request, VERSION, Verb};

use crate::agent;
use crate::cni_args::Pod;
use crate::config::Settings;
use crate::invocation::{Attached, Attachment, Detached};
use crate::netns::{self, NetnsError};
use crate::reply::{Answer, Failure, log};

/// DEL is answered within a second, so that a node without an agent can be drained.
const DEL_PATIENCE: Duration = Duration::from_millis(800);

/// Captures the pod, if it belongs to the mesh, before its containers start.
///
/// # Errors
/// [`Failure`] whenever the pod might belong to the mesh and is not known to be captured.
pub fn add(attached: Attached) -> Result<Answer, Failure> {
    judge(&attached, Verb::Add)?;
    Ok(Answer::Result(attached.prev_result.raw))
}

/// Asks whether the pod is still as ADD left it.
///
/// # Errors
/// [`Failure`] when it is not, or when nobody can tell.
pub fn check(attached: &Attached) -> Result<Answer, Failure> {
    judge(attached, Verb::Check)?;
    Ok(Answer::Nothing)
}

/// Tells the agent that the pod is gone. An agent that cannot be told finds out by
/// itself, so this never fails.
pub fn del(detached: &Detached) {
    let Detached { attachment, netns, settings } = detached;
    let Some(pod) = &attachment.pod else { return };
    let request = request(Verb::Del, attachment, pod, netns.as_deref());
    match agent::ask(&settings.agent_socket, DEL_PATIENCE, &request, None) {
        Ok(Outcome::Done) => log(&format!("DEL {}: done", label(pod))),
        Ok(Outcome::Error { message, .. }) => log(&format!("DEL {}: {message}", label(pod))),
        Ok(other) => log(&format!("DEL {}: unexpected answer {other:?}", label(pod))),
        Err(error) => log(&format!("DEL {}: {error}", label(pod))),
    }
}

/// ADD and CHECK: passes whom we need not ask about, and asks about the rest.
fn judge(attached: &Attached, verb: Verb) -> Result<(), Failure> {
    let netns = netns::open(&attached.netns);
    if let Err(own @ NetnsError::Own { .. }) = netns {
        return Err(own.into());
    }
    let Attached { attachment, settings, prev_result, .. } = attached;
    let Some(pod) = asked_about(attachment, settings) else {
        return Ok(());
    };
    let netns = netns?;
    let mut request = request(verb, attachment, pod, Some(&attached.netns));
    request.ips.clone_from(&prev_result.ips);
    let outcome = ask(settings, &request, netns.as_fd())?;
    accept(outcome, verb, pod)
}

/// The pod, unless it is in an excluded namespace, or none at all.
fn asked_about<'a>(attachment: &'a Attachment, settings: &Settings) -> Option<&'a Pod> {
    let Some(pod) = &attachment.pod else {
        log("not a pod (no K8S_POD_NAME in CNI_ARGS): passed through");
        return None;
    };
    if settings.exclude_namespaces.contains(&pod.namespace) {
        log(&format!("{}: namespace is excluded, passed through", label(pod)));
        return None;
    }
    Some(pod)
}

fn ask(
    settings: &Settings,
    request: &Request,
    netns: BorrowedFd<'_>,
) -> Result<Outcome, agent::AgentError> {
    agent::ask(&settings.agent_socket, settings.patience(), request, Some(netns))
}

fn accept(outcome: Outcome, verb: Verb, pod: &Pod) -> Result<(), Failure> {
    let who = label(pod);
    match outcome {
        Outcome::Captured => log(&format!("{who}: captured")),
        Outcome::NotInMesh { reason } => log(&format!("{who}: not in the mesh: {reason}")),
        Outcome::Error { code, message, details } => {
            return Err(Failure { code: code.cni(), message, details });
        }
        other @ (Outcome::Done | Outcome::Ready { .. } | Outcome::Collected { .. }) => {
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

fn label(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
