//! One stream to the control plane, from open to end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use mesh::proto::ADDRESS_TYPE;
use mesh::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tracing::info;

use super::apply::{Applied, Applier};
use super::demand::Change;
use super::error::{PATIENCE, StreamError, refused};
use super::node::NodeInfo;
use super::wire::RawCodec;
use super::{Metrics, ViewHandle};
use crate::identity::Token;

pub(super) const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The first response of a large mesh is one message.
pub(super) const MAX_MESSAGE: usize = 200 << 20;

/// How often names are looked for that nobody uses any more.
const SWEEP: Duration = Duration::from_secs(60);

/// Place for the requests that open a stream, an acknowledgement and a subscription.
const OUTBOX: usize = 4;

/// Who calls.
#[derive(Debug)]
pub struct Caller {
    /// What we tell about ourselves.
    pub node: NodeInfo,
    /// What proves it.
    pub token: Token,
    /// Headers that the operator wants to be sent, names and values.
    pub headers: Vec<(String, String)>,
}

/// What is needed once there is a connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) caller: Caller,
    pub(super) applier: Applier,
    pub(super) view: ViewHandle,
    pub(super) metrics: Metrics,
    /// Something was received on the current stream.
    pub(super) progress: bool,
    /// Bytes of the largest response that is read.
    pub(super) max_message: usize,
}

type Opened = (mpsc::Sender<Bytes>, Streaming<Bytes>);

/// What a session waits for.
enum Event {
    Response(Option<Bytes>),
    Names,
    AskAgain,
}

impl Session {
    /// One stream, from open to end.
    pub(super) async fn stream(&mut self, channel: Channel, address: &str) -> StreamError {
        self.progress = false;
        let error = match self.run(channel, address).await {
            Ok(()) => StreamError::Complete,
            Err(error) => error,
        };
        if error.may_be_too_large() && !self.progress {
            info!(address, "what we hold may be too much for one request: less is claimed");
            // If the thread is gone, the next stream says so.
            let _ = self.applier.run(|core| core.claim_less()).await;
        }
        error
    }

    async fn run(&mut self, channel: Channel, address: &str) -> Result<(), StreamError> {
        let (requests, responses) = self.open(channel).await?;
        info!(address, "control plane stream is open");
        self.metrics.connected.set(1);
        self.serve(&requests, responses).await
    }

    async fn open(&self, channel: Channel) -> Result<Opened, StreamError> {
        let node = self.caller.node.message();
        let opening = self.applier.run(move |core| core.opening(node)).await?;
        let (requests, queue) = mpsc::channel(OUTBOX);
        for request in opening {
            // There is room for all of them, and the receiver is at hand.
            let _ = requests.try_send(request);
        }
        let mut request = Request::new(ReceiverStream::new(queue));
        self.introduce(&mut request)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(self.max_message);
        let call = async {
            // The channel is connected: an error here is that of the connection.
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.streaming(request, PathAndQuery::from_static(METHOD), RawCodec).await
        };
        let response = timeout(PATIENCE, call)
            .await
            .map_err(|_| StreamError::Stalled("open the stream"))?
            .map_err(refused("open the stream"))?;
        Ok((requests, response.into_inner()))
    }

    /// The headers that say who calls.
    fn introduce<T>(&self, request: &mut Request<T>) -> Result<(), StreamError> {
        let headers = request.metadata_mut();
        for (name, value) in &self.caller.headers {
            let unusable = || StreamError::Header(name.clone());
            let value: AsciiMetadataValue = value.parse().map_err(|_| unusable())?;
            let name = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            headers.insert(name, value);
        }
        if let Some(bearer) = self.caller.token.bearer()? {
            headers.insert("authorization", bearer);
            let cluster = &self.caller.node.cluster;
            let cluster: AsciiMetadataValue =
                cluster.parse().map_err(|_| StreamError::ClusterId(cluster.clone()))?;
            headers.insert("clusterid", cluster);
        }
        Ok(())
    }

    async fn serve(
        &mut self,
        requests: &mpsc::Sender<Bytes>,
        mut responses: Streaming<Bytes>,
    ) -> Result<(), StreamError> {
        let mut sweep = interval(SWEEP);
        let mut ask_again_at = None;
        loop {
            let on_demand = self.view.demand().is_some();
            let event = tokio::select! {
                response = responses.message() => {
                    Event::Response(response.map_err(refused("receive"))?)
                }
                () = self.news() => Event::Names,
                _ = sweep.tick(), if on_demand => Event::Names,
                () = at(ask_again_at) => Event::AskAgain,
            };
            match event {
                Event::Response(None) => return Ok(()),
                Event::AskAgain => return Err(StreamError::AskAgain),
                Event::Response(Some(bytes)) => {
                    self.progress = true;
                    let applied = self.applier.run(move |core| core.apply(bytes)).await?;
                    let Applied { reply, ask_again_at: due } = applied?;
                    ask_again_at = due;
                    send(requests, reply).await?;
                }
                Event::Names => {
                    if let Some(request) = self.subscription() {
                        send(requests, request).await?;
                    }
                }
            }
        }
    }

    /// Returns when names were asked for.
    async fn news(&self) {
        match self.view.demand() {
            Some(demand) => demand.news().await,
            None => std::future::pending().await,
        }
    }

    /// The request that tells which names are asked for now and which not any more.
    fn subscription(&self) -> Option<Bytes> {
        let change = self.view.demand()?.change(Instant::now());
        if change == Change::default() {
            return None;
        }
        let texts = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
        let request = DeltaDiscoveryRequest {
            type_url: ADDRESS_TYPE.to_owned(),
            resource_names_subscribe: texts(&change.subscribe),
            resource_names_unsubscribe: texts(&change.unsubscribe),
            ..Default::default()
        };
        Some(request.encode_to_vec().into())
    }
}

async fn send(requests: &mpsc::Sender<Bytes>, request: Bytes) -> Result<(), StreamError> {
    timeout(PATIENCE, requests.send(request))
        .await
        .map_err(|_| StreamError::Stalled("send a request"))?
        .map_err(|_| StreamError::Complete)
}

/// Returns at this time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
