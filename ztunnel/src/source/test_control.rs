//! A control plane for tests: it hands every stream to the test, which says what happens
//! next, byte by byte if it wants to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mesh::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::session::METHOD;
use super::wire::RawCodec;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What the fake control plane sees and says on one stream.
pub(super) struct Call {
    pub(super) headers: tonic::metadata::MetadataMap,
    requests: Streaming<Bytes>,
    pub(super) responses: mpsc::Sender<Result<Bytes, Status>>,
}

impl Call {
    pub(super) async fn request(&mut self) -> DeltaDiscoveryRequest {
        let message = timeout(LIMIT, self.requests.message()).await.expect("a request in time");
        DeltaDiscoveryRequest::decode(message.unwrap().unwrap()).unwrap()
    }

    /// Waits for a request of this type, passing over others.
    pub(super) async fn request_of(&mut self, url: &str) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == url {
                return request;
            }
        }
    }

    pub(super) async fn respond(&self, url: &str, nonce: &str, resources: Vec<Resource>) {
        let (type_url, nonce) = (url.to_owned(), nonce.to_owned());
        self.send(DeltaDiscoveryResponse { type_url, nonce, resources, ..Default::default() })
            .await;
    }

    pub(super) async fn remove(&self, url: &str, nonce: &str, names: &[&str]) {
        let removed_resources = names.iter().map(ToString::to_string).collect();
        let (type_url, nonce) = (url.to_owned(), nonce.to_owned());
        self.send(DeltaDiscoveryResponse {
            type_url,
            nonce,
            removed_resources,
            ..Default::default()
        })
        .await;
    }

    pub(super) async fn send(&self, response: DeltaDiscoveryResponse) {
        self.send_bytes(response.encode_to_vec()).await;
    }

    pub(super) async fn send_bytes(&self, bytes: Vec<u8>) {
        self.responses.send(Ok(bytes.into())).await.unwrap();
    }

    /// Ends the stream.
    pub(super) async fn end(self, status: Status) {
        self.responses.send(Err(status)).await.unwrap();
    }
}

/// A control plane that hands every stream to the test.
#[derive(Clone)]
pub(super) struct FakeControl {
    calls: mpsc::Sender<Call>,
}

impl NamedService for FakeControl {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower::Service<http::Request<Body>> for FakeControl {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.calls.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), METHOD);
            let mut grpc = tonic::server::Grpc::new(RawCodec);
            Ok(grpc.streaming(HandOver(calls), request).await)
        })
    }
}

struct HandOver(mpsc::Sender<Call>);

type Responses = Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for HandOver {
    type Response = Bytes;
    type ResponseStream = Responses;
    type Future = BoxFuture<Response<Responses>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let (responses, queue) = mpsc::channel(4);
            let headers = request.metadata().clone();
            let call = Call { headers, requests: request.into_inner(), responses };
            calls.send(call).await.map_err(|_| Status::unavailable("the test is over"))?;
            Ok(Response::new(Box::pin(ReceiverStream::new(queue)) as Responses))
        })
    }
}

pub(super) async fn fake_control() -> (SocketAddr, mpsc::Receiver<Call>) {
    let (calls, incoming) = mpsc::channel(4);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder().add_service(FakeControl { calls });
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, incoming)
}
