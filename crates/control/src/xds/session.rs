//! One discovery stream: the conversation of a client, with its deadlines.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::client::{Client, Heard};
use super::subscription::Kind;
use crate::callers::Caller;
use crate::world::World;

/// A client that has not answered a response by then is gone, or as good as.
const ANSWER: Duration = Duration::from_secs(60);
/// After this a client must call again, with a token that is still good. What it has it
/// keeps, and is sent differences only.
const AGE: Duration = Duration::from_secs(30 * 60);

/// What goes out: at most one response of each type is unanswered, so the queue is never
/// longer.
pub(super) type Outbox = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// Place for one response of each type and the status that ends the stream.
pub(super) const OUTBOX: usize = Kind::ALL.len() + 1;

pub(super) struct Session {
    pub(super) caller: Caller,
    pub(super) worlds: watch::Receiver<Option<Arc<World>>>,
    pub(super) outbox: Outbox,
    pub(super) stop: CancellationToken,
}

/// How a stream ends.
enum End {
    /// The client went away.
    Left,
    /// We end it and say why.
    Told(Status),
}

impl Session {
    /// Runs until one side ends the stream.
    pub(super) async fn run(
        mut self,
        requests: impl Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send,
    ) {
        let (caller, pod) = (self.caller.account.to_string(), self.caller.pod.clone());
        tracing::info!(caller, pod, node = self.caller.node, "discovery stream opened");
        match self.converse(requests).await {
            End::Left => tracing::info!(caller, pod, "discovery stream closed by the client"),
            End::Told(status) => {
                tracing::info!(caller, pod, reason = status.message(), "discovery stream ended");
                // No room means that the client reads nothing; it will see the end anyway.
                let _ = self.outbox.try_send(Err(status));
            }
        }
    }

    async fn converse(
        &mut self,
        requests: impl Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send,
    ) -> End {
        let mut requests = pin!(requests);
        let mut client = Client::default();
        let mut overdue = Overdue::default();
        let old = Instant::now() + AGE;
        loop {
            if let Err(status) = self.send_what_is_due(&mut client, &mut overdue) {
                return End::Told(status);
            }
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => {
                        self.hear(&mut client, request);
                        if client.is_too_much() {
                            let text = "more names are asked for than any mesh has";
                            return End::Told(Status::resource_exhausted(text));
                        }
                        overdue.update(&client);
                    }
                    Some(Err(_)) | None => return End::Left,
                },
                changed = self.worlds.changed() => if changed.is_err() {
                    return End::Told(Status::unavailable("the server is being stopped"));
                },
                () = sleep_until(overdue.next().unwrap_or(old)), if overdue.next().is_some() => {
                    let text = format!("a response was not answered within {ANSWER:?}");
                    return End::Told(Status::deadline_exceeded(text));
                }
                () = sleep_until(old) => {
                    let text = "the stream is old: open another one with a fresh token";
                    return End::Told(Status::deadline_exceeded(text));
                }
                () = self.outbox.closed() => return End::Left,
                () = self.stop.cancelled() => {
                    return End::Told(Status::unavailable("the server is being stopped"));
                }
            }
        }
    }

    /// Nothing is due as long as the world is not known.
    fn send_what_is_due(
        &mut self,
        client: &mut Client,
        overdue: &mut Overdue,
    ) -> Result<(), Status> {
        let Some(world) = self.worlds.borrow_and_update().clone() else {
            return Ok(());
        };
        for kind in Kind::ALL {
            if let Some(response) = client.next(kind, &world) {
                let (added, removed) = (response.resources.len(), response.removed_resources.len());
                tracing::debug!(pod = self.caller.pod, ?kind, added, removed, "sent");
                self.outbox
                    .try_send(Ok(response))
                    .map_err(|_| Status::resource_exhausted("more was sent than was read"))?;
                overdue.sent(kind);
            }
        }
        Ok(())
    }

    fn hear(&self, client: &mut Client, request: DeltaDiscoveryRequest) {
        let pod = &self.caller.pod;
        if let Some(node) = &request.node {
            tracing::debug!(pod, node_id = node.id, "client introduced itself");
        }
        match client.on(request) {
            Heard::Subscribed(kind) => tracing::debug!(pod, ?kind, "subscribed"),
            Heard::Rejected { kind, detail } => tracing::warn!(
                pod, caller = %self.caller.account, node = self.caller.node, ?kind, detail,
                "the client rejects resources; it keeps the rest"
            ),
            Heard::Unknown(type_url) => {
                tracing::warn!(pod, type_url, "subscription to a type that is not served");
            }
            Heard::Acked(_) | Heard::Nothing => {}
        }
    }
}

/// Until when answers must have come.
#[derive(Default)]
struct Overdue([Option<Instant>; Kind::ALL.len()]);

impl Overdue {
    fn sent(&mut self, kind: Kind) {
        self.0[kind as usize] = Some(Instant::now() + ANSWER);
    }

    fn update(&mut self, client: &Client) {
        for kind in Kind::ALL {
            if !client.awaiting(kind) {
                self.0[kind as usize] = None;
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests;
