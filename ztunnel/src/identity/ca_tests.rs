//! The client against a certificate service that speaks gRPC over TLS.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mesh::Identity;
use mesh::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use rcgen::SanType;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::certified::Surroundings;
use super::{CaClient, CaSettings, ControlChannel, ExtraHeaders, IdentityError, Subject, Token};
use crate::tls::test_ca::TestCa;
use crate::tls::{ControlSettings, RootSource, Terms, provider};

/// Signs for who has the right token, and remembers what it was asked.
#[derive(Clone)]
struct Service {
    ca: TestCa,
    seen: Arc<Mutex<Vec<IstioCertificateRequest>>>,
    tenants: Arc<Mutex<Vec<String>>>,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service {
    fn sign(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        if header("authorization") != Some("Bearer right") || header("clusterid") != Some("c1") {
            return Err(Status::unauthenticated("wrong token"));
        }
        self.tenants.lock().unwrap().extend(header("x-tenant").map(ToOwned::to_owned));
        self.seen.lock().unwrap().push(request.get_ref().clone());
        let cert_chain = self.ca.answer(&request.get_ref().csr).map_err(Status::internal)?;
        Ok(IstioCertificateResponse { cert_chain })
    }
}

impl tower::Service<Request<IstioCertificateRequest>> for Service {
    type Response = Response<IstioCertificateResponse>;
    type Error = Status;
    type Future = Answer<Self::Response, Status>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let answer = self.sign(&request).map(Response::new);
        Box::pin(async move { answer })
    }
}

/// The same over HTTP.
#[derive(Clone)]
struct Http(Service);

impl tower::Service<http::Request<hyper::body::Incoming>> for Http {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        assert_eq!(
            request.uri().path(),
            "/istio.v1.auth.IstioCertificateService/CreateCertificate"
        );
        let service = self.0.clone();
        Box::pin(async move {
            let codec = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}

async fn start(service: Service) -> (ControlChannel, JoinSet<()>) {
    let (key, leaf) = service.ca.leaf(&[], |params| {
        params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    });
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let root = RootSource::Pem(service.ca.root_pem());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let http = TowerToHyperService::new(Http(service.clone()));
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), http)
                .await;
        }
    });
    let settings = ControlSettings { address, root, alt_hostname: None };
    (ControlChannel::new(settings).unwrap(), tasks)
}

fn plain() -> Surroundings<'static> {
    static TERMS: LazyLock<Terms> = LazyLock::new(Terms::default);
    Surroundings { terms: &TERMS, earlier_roots: &[] }
}

fn client(channel: &ControlChannel, token: &str) -> CaClient {
    let settings = CaSettings { cluster: "c1".to_owned(), ttl: Duration::from_secs(7200) };
    CaClient::new(channel, Token::from_setting(Some(token)), settings)
}

fn service() -> Service {
    Service { ca: TestCa::new(), seen: Arc::default(), tenants: Arc::default() }
}

#[tokio::test]
async fn the_service_is_asked_as_istio_asks() {
    let service = service();
    let (channel, _tasks) = start(service.clone()).await;
    let cart = Identity::new("", "shop", "cart").unwrap();
    let certified = client(&channel, "right").issue(&cart, &plain()).await.unwrap();
    assert_eq!(*certified.identity(), cart);
    let seen = service.seen.lock().unwrap();
    assert_eq!(seen[0].validity_duration, 7200);
    let impersonated = &seen[0].metadata.as_ref().unwrap().fields["ImpersonatedIdentity"];
    assert_eq!(impersonated.kind, Some(Kind::StringValue(cart.to_string())));
}

#[tokio::test]
async fn a_workload_with_a_token_of_its_own_asks_for_nobody_else() {
    let service = service();
    let (channel, _tasks) = start(service.clone()).await;
    let cart = Identity::new("", "shop", "cart").unwrap();
    let client = client(&channel, "right").with_subject(Subject::Bearer);
    client.issue(&cart, &plain()).await.unwrap();
    assert_eq!(service.seen.lock().unwrap()[0].metadata, None);
}

#[tokio::test]
async fn a_refusal_names_the_identity_and_the_answer() {
    let (channel, _tasks) = start(service()).await;
    let cart = Identity::new("", "shop", "cart").unwrap();
    let error = client(&channel, "wrong").issue(&cart, &plain()).await.unwrap_err();
    let IdentityError::Refused { status, .. } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Code::Unauthenticated);
    let text = error.to_string();
    assert!(text.contains("shop/sa/cart") && text.contains("wrong token"), "{text}");
}

#[tokio::test]
async fn an_unreachable_service_is_an_error_that_says_why() {
    let address = "https://127.0.0.1:1".parse().unwrap();
    let root = RootSource::Pem(TestCa::new().root_pem());
    let settings = ControlSettings { address, root, alt_hostname: None };
    let channel = ControlChannel::new(settings).unwrap();
    let error = channel.connect().await.unwrap_err().to_string();
    assert_eq!(error.matches("efused").count(), 1, "{error}");
    let cart = Identity::new("", "shop", "cart").unwrap();
    let error = client(&channel, "right").issue(&cart, &plain()).await.unwrap_err().to_string();
    assert!(error.contains("efused"), "{error}");
}

#[tokio::test]
async fn headers_of_the_operator_go_along() {
    let service = service();
    let (channel, _tasks) = start(service.clone()).await;
    let mut headers = ExtraHeaders::default();
    headers.add("X-Tenant", "blue").unwrap();
    let cart = Identity::new("", "shop", "cart").unwrap();
    client(&channel, "right").with_headers(&headers).issue(&cart, &plain()).await.unwrap();
    assert_eq!(*service.tenants.lock().unwrap(), ["blue"]);
}

#[tokio::test]
async fn a_token_is_read_again_for_each_call() {
    let (channel, _tasks) = start(service()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let settings = CaSettings { cluster: "c1".to_owned(), ttl: Duration::from_secs(7200) };
    let client = CaClient::new(&channel, Token::from_setting(file.to_str()), settings);
    let cart = Identity::new("", "shop", "cart").unwrap();
    let missing = client.issue(&cart, &plain()).await.unwrap_err();
    assert!(matches!(missing, IdentityError::Token(_)), "{missing}");
    std::fs::write(&file, "old").unwrap();
    let old = client.issue(&cart, &plain()).await.unwrap_err();
    assert!(matches!(old, IdentityError::Refused { .. }), "{old}");
    std::fs::write(&file, "right\n").unwrap();
    client.issue(&cart, &plain()).await.unwrap();
}
