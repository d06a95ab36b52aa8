//! One connection of the plugin: who asks, what for, what is answered.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use netns::PodNetns;
use plugin_api::{Code, Outcome, Reply, Request, VERSION, Verb};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::frame::{self, ReceiveError};
use crate::facts::{PodName, PodUid};
use crate::reconcile::{Attach, AttachError, Attached, CheckError, Checked, Reconciler};

/// How long one request may take. The plugin gives up sooner; this bounds a plugin that
/// does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(super) struct Door {
    pub(super) reconciler: Reconciler,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

impl Door {
    pub(super) async fn answer(&self, mut stream: UnixStream) {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 => {}
            peer => {
                let uid = peer.map(|peer| peer.uid()).ok();
                tracing::warn!(uid, "somebody else than root asked at the plugin's socket");
                return;
            }
        }
        let received = tokio::select! {
            () = self.stop.cancelled() => return,
            received = frame::receive(&stream) => received,
        };
        let (request, netns) = match received {
            Ok(received) => received,
            Err(error) => return self.refuse(&mut stream, &error).await,
        };
        let outcome = self.decide(&stream, &request, netns.as_ref()).await;
        self.metrics.answered(&outcome);
        log(&request, &outcome);
        let added = request.verb == Verb::Add && !matches!(outcome, Outcome::Error { .. });
        let sent = frame::reply(&mut stream, &Reply { version: VERSION, outcome }).await;
        if let (Err(error), true, Some(netns)) = (sent, added, netns) {
            let (pod, container) = (name(&request), &request.container_id);
            tracing::warn!(%pod, %error, "nobody took the answer to ADD, taking it back");
            self.reconciler.abandon(container, &request.ifname, &netns).await;
        }
    }

    async fn refuse(&self, stream: &mut UnixStream, error: &ReceiveError) {
        tracing::warn!(%error, "bad request at the plugin's socket");
        let code = match error {
            ReceiveError::Netns(_) => Code::InvalidNetns,
            ReceiveError::Frame(_) | ReceiveError::Descriptors(_) | ReceiveError::Surplus(_) => {
                Code::InvalidRequest
            }
            ReceiveError::Io(_) | ReceiveError::TooSlow | ReceiveError::Partial => Code::TryAgain,
        };
        let outcome = failure(code, error.to_string());
        self.metrics.answered(&outcome);
        // It may well be gone.
        let _ = frame::reply(stream, &Reply { version: VERSION, outcome }).await;
    }

    async fn decide(
        &self,
        stream: &UnixStream,
        request: &Request,
        netns: Option<&PodNetns>,
    ) -> Outcome {
        if request.version != VERSION {
            let message = format!(
                "plugin speaks version {} of the contract, this node agent {VERSION}",
                request.version
            );
            return failure(Code::IncompatibleVersion, message);
        }
        match (request.verb, netns) {
            (Verb::Del, None) => {
                self.reconciler.delete(&request.container_id, &request.ifname).await;
                Outcome::Done
            }
            (Verb::Add, Some(netns)) => self.add(stream, request, netns).await,
            (Verb::Check, Some(netns)) => self.check(request, netns).await,
            (Verb::Del, Some(_)) => {
                failure(Code::InvalidRequest, "DEL came with a descriptor".into())
            }
            (Verb::Add | Verb::Check, None) => {
                let message = "no descriptor of the pod's network namespace came along";
                failure(Code::InvalidRequest, message.into())
            }
        }
    }

    /// The work is never dropped half-way: a plugin that hangs up, or takes too long,
    /// makes it take back what it did.
    async fn add(&self, stream: &UnixStream, request: &Request, netns: &PodNetns) -> Outcome {
        let attach = Attach {
            name: name(request),
            uid: request.uid.clone().map(PodUid),
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
            path: request.netns_path.clone().map(PathBuf::from),
            ips: request.ips.clone(),
            netns: netns.clone(),
        };
        let abandoned = CancellationToken::new();
        let gone = async {
            tokio::select! {
                () = frame::hung_up(stream) => {}
                () = tokio::time::sleep(PATIENCE) => {}
            }
            abandoned.cancel();
            std::future::pending::<Infallible>().await
        };
        let attached = tokio::select! {
            attached = self.reconciler.attach(attach, &abandoned) => attached,
            never = gone => match never {},
        };
        match attached {
            Ok(Attached::Captured) => Outcome::Captured,
            Ok(Attached::NotInMesh(reason)) => Outcome::NotInMesh { reason: reason.to_string() },
            Err(error @ AttachError::NotThePods(_)) => {
                failure(Code::InvalidNetns, error.to_string())
            }
            Err(error) => failure(Code::TryAgain, error.to_string()),
        }
    }

    async fn check(&self, request: &Request, netns: &PodNetns) -> Outcome {
        let name = name(request);
        let (container, ifname) = (&request.container_id, &request.ifname);
        let check = self.reconciler.check(&name, container, ifname, netns);
        match tokio::time::timeout(PATIENCE, check).await {
            Ok(Ok(Checked::Captured)) => Outcome::Captured,
            Ok(Ok(Checked::NotInMesh(reason))) => Outcome::NotInMesh { reason: reason.to_string() },
            Ok(Err(error @ CheckError::OtherNetns)) => {
                failure(Code::InvalidNetns, error.to_string())
            }
            Ok(Err(error)) => failure(Code::NotCaptured, error.to_string()),
            Err(_) => failure(Code::TryAgain, "the pod is being worked on".into()),
        }
    }
}

fn name(request: &Request) -> PodName {
    PodName { namespace: request.namespace.clone(), name: request.name.clone() }
}

fn failure(code: Code, message: String) -> Outcome {
    Outcome::Error { code, message, details: String::new() }
}

fn log(request: &Request, outcome: &Outcome) {
    let (pod, verb, container) = (name(request), request.verb, &request.container_id);
    match outcome {
        Outcome::Error { message, .. } => {
            tracing::warn!(%pod, ?verb, %container, error = %message, "plugin's request failed");
        }
        other => tracing::info!(%pod, ?verb, %container, outcome = ?other, "plugin's request"),
    }
}
