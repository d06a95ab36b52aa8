//! One connection of the plugin: who asks, what for, what is answered.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netns::PodNetns;
use plugin_api::{Call, Code, FrameError, GcRequest, Outcome, Reply, Request, VERSION, Verb};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use super::frame::{self, ReceiveError};
use crate::facts::{PodName, PodUid};
use crate::reconcile::{Attach, AttachError, Attached, CheckError, Checked, Ready, Reconciler};

/// How long one request may take. The plugin gives up sooner; this bounds a plugin that
/// does not.
const PATIENCE: Duration = Duration::from_secs(30);

const NO_LISTS: &str = "the node agent has not yet got the lists of pods and namespaces from \
    the Kubernetes API, without which it cannot tell which pods belong to the mesh";

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
        match received {
            Ok((Call::Pod(request), netns)) => self.about_pod(stream, &request, netns).await,
            Ok((_, Some(_))) => {
                self.refuse(&mut stream, &ReceiveError::Descriptors(1)).await;
            }
            Ok((Call::Status, None)) => self.send(&mut stream, self.status()).await,
            Ok((Call::Gc(request), None)) => {
                let outcome = self.gc(&request).await;
                self.send(&mut stream, outcome).await;
            }
            Err(error) => self.refuse(&mut stream, &error).await,
        }
    }

    async fn about_pod(&self, mut stream: UnixStream, request: &Request, netns: Option<PodNetns>) {
        let begin = Instant::now();
        let outcome = self.decide(&stream, request, netns.as_ref()).await;
        self.metrics.answered(&outcome);
        log(request, &outcome, begin.elapsed());
        let added = request.verb == Verb::Add && !matches!(outcome, Outcome::Error { .. });
        let sent = frame::reply(&mut stream, &Reply { version: VERSION, outcome }).await;
        if let (Err(error), true, Some(netns)) = (sent, added, netns) {
            let (pod, container) = (name(request), &request.container_id);
            tracing::warn!(%pod, container, %error, "nobody took the answer to ADD, taking it back");
            self.reconciler.abandon(container, &request.ifname, &netns).await;
        }
    }

    async fn refuse(&self, stream: &mut UnixStream, error: &ReceiveError) {
        tracing::warn!(%error, "bad request at the plugin's socket");
        let code = match error {
            ReceiveError::Frame(FrameError::OtherVersion(_)) => Code::IncompatibleVersion,
            ReceiveError::Netns(_) => Code::InvalidNetns,
            ReceiveError::Frame(_) | ReceiveError::Descriptors(_) | ReceiveError::Surplus(_) => {
                Code::InvalidRequest
            }
            ReceiveError::Io(_) | ReceiveError::TooSlow | ReceiveError::Partial => Code::TryAgain,
        };
        self.send(stream, failure(code, error.to_string())).await;
    }

    /// Answers where nothing is to be taken back if nobody hears it.
    async fn send(&self, stream: &mut UnixStream, outcome: Outcome) {
        self.metrics.answered(&outcome);
        // It may well be gone.
        let _ = frame::reply(stream, &Reply { version: VERSION, outcome }).await;
    }

    /// An absent ztunnel does not make the node unready: ztunnel runs in a pod itself, and
    /// the kubelet starts no container on a node whose network is not ready. It is outside
    /// the mesh, as other pods are that an ADD lets start meanwhile.
    fn status(&self) -> Outcome {
        match self.reconciler.readiness() {
            Ready::Yes => Outcome::Ready { note: String::new() },
            Ready::WithoutZtunnel => Outcome::Ready {
                note: "no ztunnel is connected to the node agent: new pods of the mesh wait".into(),
            },
            Ready::NotYet { pods: 0 } => failure(Code::NotReady, NO_LISTS.into()),
            Ready::NotYet { pods } => failure(
                Code::NotReadyImpaired,
                format!("{NO_LISTS}; {pods} running pods were not looked at so far"),
            ),
        }
    }

    async fn gc(&self, request: &GcRequest) -> Outcome {
        let network = &request.network;
        match self.reconciler.collect(network, &request.valid).await {
            Ok(attachments) => {
                tracing::info!(%network, attachments, "GC: stale attachments were let go");
                Outcome::Collected { attachments }
            }
            Err(error) => {
                tracing::warn!(%network, %error, "GC: not everything was let go");
                failure(Code::TryAgain, error.to_string())
            }
        }
    }

    async fn decide(
        &self,
        stream: &UnixStream,
        request: &Request,
        netns: Option<&PodNetns>,
    ) -> Outcome {
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
            (verb @ (Verb::Status | Verb::Gc), _) => {
                failure(Code::InvalidRequest, format!("{verb:?} is not about one pod"))
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
            network: request.network.clone(),
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
        let check = self.reconciler.check(&name, &request.container_id, netns, &request.ips);
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

/// All that tells one call from another, so that the log alone tells a pod's story.
fn log(request: &Request, outcome: &Outcome, took: Duration) {
    let Request { verb, uid, container_id: container, ifname, .. } = request;
    let (pod, uid) = (name(request), uid.as_deref().unwrap_or_default());
    match outcome {
        Outcome::Error { code, message, .. } => {
            let code = code.cni();
            tracing::warn!(
                %pod, uid, ?verb, container, ifname, ?took, code, error = %message,
                "plugin's request failed"
            );
        }
        other => tracing::info!(
            %pod, uid, ?verb, container, ifname, ?took, outcome = ?other, "plugin's request"
        ),
    }
}
