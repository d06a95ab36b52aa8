use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh::proto::envoy::service::discovery::v3::Resource;
use mesh::proto::workload::{Address, Workload, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use prometheus_client::registry::Registry;
use prost_types::Any;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Status};

use super::*;
use crate::source::{ViewHandle, channel};

const LIMIT: Duration = Duration::from_secs(10);

/// What the fake control plane sees and says on one stream.
struct Call {
    headers: tonic::metadata::MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Call {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(LIMIT, self.requests.message()).await.expect("a request in time").unwrap().unwrap()
    }

    async fn respond(&self, url: &str, nonce: &str, resources: Vec<Resource>) {
        let response = DeltaDiscoveryResponse {
            type_url: url.to_owned(),
            nonce: nonce.to_owned(),
            resources,
            ..Default::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// A control plane that hands every stream to the test.
#[derive(Clone)]
struct FakeControl {
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
            let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.streaming(HandOver(calls), request).await)
        })
    }
}

struct HandOver(mpsc::Sender<Call>);

type Responses =
    Pin<Box<dyn futures_util::Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

impl StreamingService<DeltaDiscoveryRequest> for HandOver {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Responses;
    type Future = BoxFuture<Response<Responses>, Status>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
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

async fn fake_control() -> (SocketAddr, mpsc::Receiver<Call>) {
    let (calls, incoming) = mpsc::channel(4);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder().add_service(FakeControl { calls });
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, incoming)
}

async fn connect(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

fn session() -> (Session, ViewHandle, Readiness) {
    let (writer, view) = channel();
    let node = NodeInfo {
        node: "n1".to_owned(),
        cluster: "Kubernetes".to_owned(),
        pod_name: "ztunnel-x".to_owned(),
        pod_namespace: "sluice-system".to_owned(),
        instance_ip: "10.9.9.9".to_owned(),
    };
    let readiness = Readiness::default();
    let metrics = Metrics::register(&mut Registry::default());
    let token = Token::from_setting(Some("secret"));
    let session = Session::new(Caller { node, token }, writer, metrics, readiness.clone());
    (session, view, readiness)
}

fn workload(name: &str) -> Resource {
    let workload = Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(workload)) };
    Resource {
        name: name.to_owned(),
        version: "v1".to_owned(),
        resource: Some(Any { type_url: ADDRESS_TYPE.to_owned(), value: address.encode_to_vec() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_session_subscribes_acknowledges_and_survives_an_outage() {
    let (addr, mut calls) = fake_control().await;
    let (mut session, view, readiness) = session();
    assert_eq!(readiness.waiting().len(), 2, "{:?}", readiness.waiting());

    let first = tokio::spawn(async move {
        let end = session.stream(connect(addr).await, "fake").await;
        (session, end)
    });
    let mut call = timeout(LIMIT, calls.recv()).await.unwrap().unwrap();
    assert_eq!(call.headers.get("authorization").unwrap(), "Bearer secret");
    assert_eq!(call.headers.get("clusterid").unwrap(), "Kubernetes");
    let opening = call.request().await;
    let node = opening.node.expect("the first request says who asks");
    assert_eq!(node.id, "ztunnel~10.9.9.9~ztunnel-x.sluice-system~sluice-system.svc.cluster.local");
    assert_eq!(opening.type_url, ADDRESS_TYPE);
    assert_eq!(call.request().await.type_url, AUTHORIZATION_TYPE);

    call.respond(ADDRESS_TYPE, "1", vec![workload("a")]).await;
    let ack = call.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
    assert!(view.current().is_none(), "policies are still missing");
    call.respond(AUTHORIZATION_TYPE, "2", vec![]).await;
    assert_eq!(call.request().await.response_nonce, "2");
    assert_eq!(view.current().unwrap().workloads().count(), 1);
    assert!(readiness.waiting().is_empty());

    // The control plane goes away in the middle of the stream.
    call.responses.send(Err(Status::unavailable("shutting down"))).await.unwrap();
    let (mut session, end) = timeout(LIMIT, first).await.unwrap().unwrap();
    assert!(!end.benign(), "{end}");
    assert!(end.to_string().contains("shutting down"), "{end}");
    assert_eq!(view.current().unwrap().workloads().count(), 1, "the last good state stays");
    assert!(readiness.waiting().is_empty(), "an outage of the control plane is not ours");

    let second = tokio::spawn(async move { session.stream(connect(addr).await, "fake").await });
    let mut call = timeout(LIMIT, calls.recv()).await.unwrap().unwrap();
    let opening = call.request().await;
    assert_eq!(opening.initial_resource_versions["a"], "v1");
    drop(call);
    let end = timeout(LIMIT, second).await.unwrap().unwrap();
    assert!(matches!(end, StreamError::Complete), "{end}");
}

#[tokio::test]
async fn a_refused_token_is_told_to_the_operator() {
    let (addr, calls) = fake_control().await;
    drop(calls);
    let (mut session, ..) = session();
    let end = timeout(LIMIT, session.stream(connect(addr).await, "fake")).await.unwrap();
    assert!(matches!(end, StreamError::Refused { .. }), "{end}");

    let status = Status::unauthenticated("token review failed");
    let text = refused("open the stream")(status).to_string();
    assert!(text.contains("token review failed") && text.contains("AUTH_TOKEN"), "{text}");
}
