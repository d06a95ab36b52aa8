//! What a node proxy does: TLS with the root it was given, discovery, certificates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use control::Control;
use hyper_util::rt::TokioIo;
use mesh::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::soon;

const DISCOVERY: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CERTIFICATES: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A connection to the control plane.
pub struct Client {
    grpc: Grpc<Channel>,
    token: Option<String>,
}

impl Client {
    pub async fn connect(control: &Control, token: Option<&str>) -> Self {
        let (address, tls) = (control.local_addr(), tls(control.root_pem()));
        let connector =
            tower::service_fn(move |_: http::Uri| dial(address, TlsConnector::from(tls.clone())));
        let endpoint = Endpoint::from_static("http://control");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self { grpc: Grpc::new(channel), token: token.map(str::to_owned) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Asks for a certificate.
    pub async fn sign(
        &mut self,
        request: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        self.grpc.ready().await.unwrap();
        let request = self.request(request);
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(CERTIFICATES);
        Ok(self.grpc.unary(request, path, codec).await?.into_inner())
    }

    /// Opens a discovery stream.
    pub async fn discover(&mut self) -> Result<Discovery, Status> {
        self.grpc.ready().await.unwrap();
        let (requests, outbox) = mpsc::channel(8);
        let request = self.request(ReceiverStream::new(outbox));
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(DISCOVERY);
        let responses = self.grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Discovery { requests, responses, held: BTreeMap::new(), waiting: Vec::new() })
    }
}

/// A discovery stream, and what came over it.
pub struct Discovery {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Type to name to resource.
    pub held: BTreeMap<String, BTreeMap<String, Resource>>,
    waiting: Vec<DeltaDiscoveryResponse>,
}

/// Names of one response.
#[derive(Debug, PartialEq, Eq)]
pub struct Delta {
    pub resources: Vec<String>,
    pub removed: Vec<String>,
}

pub fn delta(resources: &[&str], removed: &[&str]) -> Delta {
    let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    Delta { resources: owned(resources), removed: owned(removed) }
}

impl Discovery {
    /// Subscribes to everything of a type, claiming to have these versions.
    pub async fn subscribe(&self, type_url: &str, held: BTreeMap<String, String>) {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            initial_resource_versions: held,
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response of this type, which is acknowledged.
    pub async fn next(&mut self, type_url: &str) -> Delta {
        let response = loop {
            if let Some(at) = self.waiting.iter().position(|it| it.type_url == type_url) {
                break self.waiting.remove(at);
            }
            let next = soon("a discovery response", self.responses.message()).await;
            self.waiting.push(next.unwrap().expect("the stream goes on"));
        };
        let answer = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        self.requests.send(answer).await.unwrap();
        let held = self.held.entry(type_url.to_owned()).or_default();
        let mut removed = response.removed_resources;
        for name in &removed {
            held.remove(name);
        }
        let mut resources: Vec<_> = response.resources.iter().map(|it| it.name.clone()).collect();
        held.extend(response.resources.into_iter().map(|it| (it.name.clone(), it)));
        resources.sort();
        removed.sort();
        Delta { resources, removed }
    }

    /// Names and versions of what is held.
    pub fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        let held = self.held.get(type_url).into_iter().flatten();
        held.map(|(name, it)| (name.clone(), it.version.clone())).collect()
    }

    /// What the server ends the stream with.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the end of the stream", self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }
}

fn tls(root_pem: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn dial(
    address: SocketAddr,
    connector: TlsConnector,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}
