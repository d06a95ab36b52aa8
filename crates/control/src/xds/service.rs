//! The discovery service: admits callers and opens a session for each stream.

use std::sync::Arc;
use std::time::Instant;

use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::session::{OUTBOX, Session};
use crate::callers::Gate;
use crate::services::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::tls::Peer;
use crate::world::World;

/// Serves the world.
#[derive(Debug)]
pub(crate) struct Discovery {
    gate: Arc<Gate>,
    worlds: watch::Receiver<Option<Arc<World>>>,
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Discovery {
    /// `sessions` is waited for by whoever cancels `stop`.
    pub(crate) fn new(
        gate: Arc<Gate>,
        worlds: watch::Receiver<Option<Arc<World>>>,
        sessions: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { gate, worlds, sessions, stop }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = self.gate.admit(request.metadata()).await.map_err(|refusal| {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
            if let Some(left_out) = self.gate.refusals.pass(Instant::now()) {
                tracing::warn!(?peer, %refusal, left_out, "discovery stream refused");
            }
            Status::from(refusal)
        })?;
        let (outbox, responses) = mpsc::channel(OUTBOX);
        let stop = self.stop.child_token();
        let session = Session { caller, worlds: self.worlds.clone(), outbox, stop };
        self.sessions.spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
