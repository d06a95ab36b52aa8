//! A control plane: a certificate service, as Istio's, that signs for whoever calls, and
//! discovery. It speaks gRPC by hand.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh::proto::envoy::config::core::v3::Node;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::discovery::{self, Nodes};

/// What it signed: the names in the request, and whether it was asked to impersonate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub names: Vec<String>,
    pub token: String,
    pub metadata: bool,
}

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

/// What stands before a message on a stream: one flag, and its length.
pub const PREFIX: usize = 5;

struct Signer {
    issuer: CertifiedIssuer<'static, KeyPair>,
    asked: Mutex<Vec<Asked>>,
    nodes: Nodes,
}

/// The service; ends when dropped.
pub struct Authority {
    signer: Arc<Signer>,
    _runtime: Runtime,
}

impl Authority {
    /// Serves on `listener`, which callers know by its address.
    pub fn serve(listener: TcpListener) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signer = Arc::new(Signer { issuer, asked: Mutex::default(), nodes: Nodes::default() });
        let acceptor = signer.acceptor(listener.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        runtime.spawn(accept(listener, acceptor, Arc::clone(&signer)));
        drop(_entered);
        Self { signer, _runtime: runtime }
    }

    pub fn root(&self) -> String {
        self.signer.issuer.pem()
    }

    /// Who has asked for the mesh so far.
    pub fn nodes(&self) -> Vec<Node> {
        self.signer.nodes.lock().unwrap().clone()
    }

    /// What it has signed so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.signer.asked.lock().unwrap().clone()
    }
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, signer: Arc<Signer>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, signer) = (acceptor.clone(), Arc::clone(&signer));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(move |request| Arc::clone(&signer).answer(request));
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
    }
}

impl Signer {
    fn acceptor(&self, addr: SocketAddr) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(addr.ip())];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let token = request.headers().get("authorization").cloned();
        let token = token.map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        if request.uri().path().ends_with("/DeltaAggregatedResources") {
            assert_eq!(token, "Bearer machine-token");
            return Ok(grpc(discovery::stream(request.into_body(), Arc::clone(&self.nodes))));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let message = IstioCertificateRequest::decode(&body[PREFIX..]).unwrap();
        let answer = frame(&self.sign(&message, token));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Full::new(answer).with_trailers(async { Some(Ok(trailers)) });
        Ok(grpc(body.boxed_unsync()))
    }

    fn sign(&self, request: &IstioCertificateRequest, token: String) -> IstioCertificateResponse {
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let uri = |name: &SanType| match name {
            SanType::URI(uri) => Some(uri.to_string()),
            _ => None,
        };
        let names = csr.params.subject_alt_names.iter().filter_map(uri).collect();
        let asked = Asked { names, token, metadata: request.metadata.is_some() };
        self.asked.lock().unwrap().push(asked);
        let leaf = csr.signed_by(&self.issuer).unwrap().pem();
        IstioCertificateResponse { cert_chain: vec![leaf, self.issuer.pem()] }
    }
}

fn grpc(body: Body) -> Answer {
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body).unwrap()
}

/// A message as gRPC puts it on a stream.
pub fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}
