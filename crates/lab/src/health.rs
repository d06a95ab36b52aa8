//! What a kubelet asks a pod, and an application that answers it.
//!
//! The application speaks HTTP/1 and HTTP/2 on one port: any GET is answered with 200, and
//! the health service of gRPC says that it serves.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::app::{AppError, AppErrorKind};
use crate::place::Place;

/// The method of gRPC's health service.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// A message of no bytes, not compressed: about the server as a whole.
const ASK: &[u8] = &[0, 0, 0, 0, 0];
/// A message of two bytes, not compressed: field 1 (status) is 1 (serving).
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// A probe that a pod's container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// GET at a port; any status from 200 to 399 is good.
    Http(u16),
    /// GET at a port that the container declares by this name.
    HttpNamed(String),
    /// A connection that is accepted is good.
    Tcp(u16),
    /// The health service of gRPC.
    Grpc(u16),
}

impl Probe {
    /// As a container's specification has it.
    pub(crate) fn as_in_a_spec(&self) -> Value {
        match self {
            Self::Http(port) => json!({"httpGet": {"path": "/", "port": port}}),
            Self::HttpNamed(name) => json!({"httpGet": {"path": "/", "port": name}}),
            Self::Tcp(port) => json!({"tcpSocket": {"port": port}}),
            Self::Grpc(port) => json!({"grpc": {"port": port}}),
        }
    }
}

/// An application that answers probes. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct HealthServer {
    peers: Arc<Mutex<Vec<IpAddr>>>,
    accepting: JoinHandle<()>,
}

impl HealthServer {
    pub(crate) async fn start(place: &Place, port: u16) -> Result<Self, AppError> {
        let step = || format!("{}: answer probes on port {port}", place.name());
        let failed = |error| AppError::new(step(), &error);
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = place.listen(addr).await.map_err(failed)?;
        Self::on(listener).map_err(failed)
    }

    /// Answers on a socket that listens and does not block.
    pub(crate) fn on(listener: std::net::TcpListener) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let peers = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&peers)));
        Ok(Self { peers, accepting })
    }

    /// Who connected, in order, as the application saw it.
    #[must_use]
    pub fn peers(&self) -> Vec<IpAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, peers: Arc<Mutex<Vec<IpAddr>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer.ip().to_canonical());
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A probe that gives up half-way is its own affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.method() == Method::POST && request.uri().path() == HEALTH {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from_static(SERVING));
        let body = body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed();
        let mut response = Response::new(body);
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        return Ok(response);
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"well\n")).boxed()))
}

/// Probes as a kubelet does, from `place`; the port is the one that `probe` means.
pub(crate) async fn probe(
    place: &Place,
    to: SocketAddr,
    probe: &Probe,
    deadline: Duration,
) -> Result<(), AppError> {
    let step = || format!("{}: probe {to}", place.name());
    let attempt = async {
        match probe {
            Probe::Tcp(_) => {
                place.dial(to).await.map(drop).map_err(|error| AppError::new(step(), &error))
            }
            Probe::Grpc(_) => grpc(place, to, step()).await,
            Probe::Http(_) | Probe::HttpNamed(_) => get(place, to, step()).await,
        }
    };
    match tokio::time::timeout(deadline, attempt).await {
        Ok(result) => result,
        Err(_) => Err(AppError::timeout(step(), deadline)),
    }
}

async fn get(place: &Place, to: SocketAddr, step: String) -> Result<(), AppError> {
    let stream = place.dial(to).await.map_err(|error| AppError::new(step.clone(), &error))?;
    match crate::http_client::send(stream, to, crate::http_client::get("/")).await {
        Ok((200..=399, _)) => Ok(()),
        Ok((status, _)) => Err(other(step, format!("status {status}"))),
        Err(error) => Err(other(step, error.to_string())),
    }
}

async fn grpc(place: &Place, to: SocketAddr, step: String) -> Result<(), AppError> {
    let stream = place.dial(to).await.map_err(|error| AppError::new(step.clone(), &error))?;
    let broken = |error: hyper::Error| other(step.clone(), error.to_string());
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let request = Request::post(format!("http://{to}{HEALTH}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from_static(ASK)))
        .map_err(|error| other(step.clone(), error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        if body == SERVING { Ok(()) } else { Err(other(step.clone(), format!("answer {body:?}"))) }
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(other(step.clone(), format!("the connection ended: {ended:?}"))),
    }
}

fn other(step: String, detail: String) -> AppError {
    AppError { kind: AppErrorKind::Other, step, detail }
}
