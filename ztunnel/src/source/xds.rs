//! The delta xDS client: one stream for both types, opened again for as long as ztunnel
//! lives.
//!
//! ```text
//! connect ──► open stream ──► response ──► apply, reply ──► response ...
//!    ▲             │              │
//!    └── back off ◄┴── any end ◄──┘     what was received stays in use meanwhile
//! ```

use std::time::Duration;

use http::uri::PathAndQuery;
use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::{debug, info, warn};

use super::error::{PATIENCE, StreamError, refused};
use super::node::NodeInfo;
use super::state::{Outcome, State};
use super::{Metrics, ViewWriter};
use crate::admin::{Part, Readiness};
use crate::backoff::Backoff;
use crate::identity::{ControlChannel, Token};

const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The first response of a large mesh is one message.
const MAX_MESSAGE: usize = 200 << 20;

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Who calls.
#[derive(Debug)]
pub struct Caller {
    /// What we tell about ourselves.
    pub node: NodeInfo,
    /// What proves it.
    pub token: Token,
}

/// The client; it owns the writing end of the view.
#[derive(Debug)]
pub struct XdsClient {
    /// For logs.
    address: String,
    channel: ControlChannel,
    session: Session,
}

/// What is needed once there is a connection.
#[derive(Debug)]
struct Session {
    caller: Caller,
    state: State,
    writer: ViewWriter,
    metrics: Metrics,
    readiness: Readiness,
    /// Something was received on the current stream.
    progress: bool,
}

impl XdsClient {
    /// Puts the client together; nothing is connected yet. `address` is for logs.
    #[must_use]
    pub fn new(
        address: String,
        channel: ControlChannel,
        caller: Caller,
        writer: ViewWriter,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        let session = Session::new(caller, writer, metrics, readiness);
        Self { address, channel, session }
    }

    /// Keeps a stream open until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return,
                end = self.stream() => end,
            };
            self.session.metrics.connected.set(0);
            self.session.metrics.ended(error.reason());
            if std::mem::take(&mut self.session.progress) {
                backoff.reset();
            }
            let told = backoff.worth_telling();
            let wait = backoff.wait();
            if told {
                self.report(&error, wait);
            } else {
                debug!(address = self.address, %error, retry_in = ?wait, "still no stream");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn stream(&mut self) -> StreamError {
        debug!(address = self.address, "connecting to the control plane");
        match self.channel.connect().await {
            Ok(channel) => self.session.stream(channel, &self.address).await,
            Err(error) => error.into(),
        }
    }

    fn report(&self, error: &StreamError, wait: Duration) {
        let (address, retry_in) = (self.address.as_str(), format!("{wait:?}"));
        if error.benign() {
            info!(address, retry_in, reason = %error, "control plane stream ended");
        } else {
            let view = if self.session.state.complete() {
                "the last known state stays in use"
            } else {
                "no mesh view yet, captured pods have no traffic"
            };
            warn!(address, retry_in, %error, view, "no stream to the control plane");
        }
    }
}

impl Session {
    fn new(caller: Caller, writer: ViewWriter, metrics: Metrics, readiness: Readiness) -> Self {
        let session =
            Self { caller, state: State::default(), writer, metrics, readiness, progress: false };
        session.report_readiness();
        session
    }

    /// One stream, from open to end.
    async fn stream(&mut self, channel: Channel, address: &str) -> StreamError {
        let (replies, responses) = match self.open(channel).await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        info!(address, "control plane stream is open");
        self.metrics.connected.set(1);
        match self.serve(&replies, responses).await {
            Ok(()) => StreamError::Complete,
            Err(error) => error,
        }
    }

    async fn open(&self, channel: Channel) -> Result<Opened, StreamError> {
        let opening = self.state.opening(self.caller.node.message());
        let (replies, queue) = mpsc::channel(opening.len() + 1);
        for request in opening {
            // There is room for all of them, and the receiver is at hand.
            let _ = replies.try_send(request);
        }
        let mut request = Request::new(ReceiverStream::new(queue));
        if let Some(bearer) = self.caller.token.bearer()? {
            request.metadata_mut().insert("authorization", bearer);
            let cluster = &self.caller.node.cluster;
            let cluster: AsciiMetadataValue =
                cluster.parse().map_err(|_| StreamError::ClusterId(cluster.clone()))?;
            request.metadata_mut().insert("clusterid", cluster);
        }
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let call = async {
            // The channel is connected: an error here is that of the connection.
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
            grpc.streaming(request, PathAndQuery::from_static(METHOD), codec).await
        };
        let response = timeout(PATIENCE, call)
            .await
            .map_err(|_| StreamError::Stalled("open the stream"))?
            .map_err(refused("open the stream"))?;
        Ok((replies, response.into_inner()))
    }

    async fn serve(
        &mut self,
        replies: &mpsc::Sender<DeltaDiscoveryRequest>,
        mut responses: Streaming<DeltaDiscoveryResponse>,
    ) -> Result<(), StreamError> {
        while let Some(response) = responses.message().await.map_err(refused("receive"))? {
            self.progress = true;
            let reply = self.apply(response);
            timeout(PATIENCE, replies.send(reply))
                .await
                .map_err(|_| StreamError::Stalled("send an acknowledgement"))?
                .map_err(|_| StreamError::Complete)?;
        }
        Ok(())
    }

    /// Lets a response change the view, and tells who needs to know.
    fn apply(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let url = response.type_url.clone();
        self.metrics.received(&url, response.encoded_len());
        let (received, removed) = (response.resources.len(), response.removed_resources.len());
        let Outcome { reply, changed, rejected, skipped } = self.state.on(response);
        debug!(url, received, removed, skipped, rejected = rejected.len(), "control plane update");
        for (name, reason) in &rejected {
            warn!(url, resource = name, %reason, "resource from the control plane rejected");
        }
        self.metrics.rejected(&url, rejected.len());
        if changed && self.state.complete() {
            self.writer.publish(self.state.view().clone());
        }
        self.report_readiness();
        reply
    }

    fn report_readiness(&self) {
        let missing = self.state.missing();
        let waiting = missing.iter().map(|what| format!("{what} from the control plane"));
        self.readiness.report(Part::ControlPlane, waiting.collect());
    }
}

type Opened = (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>);

#[cfg(test)]
#[path = "xds_tests.rs"]
mod tests;
