//! The three servers: short answers to few askers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Dump, Readiness};

/// Askers at a time, per port; more wait in the accept queue.
const CONCURRENT: usize = 32;

/// An asker gets one answer and this long for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failed accept, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
#[derive(Debug)]
pub struct Admin {
    /// What is waited for.
    pub readiness: Readiness,
    /// All metrics.
    pub registry: Registry,
    /// All state.
    pub dump: Dump,
    /// Ends the process in good order.
    pub quit: CancellationToken,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Servers {
    pub(super) admin: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) ready: TcpListener,
}

#[derive(Clone, Copy, Debug)]
enum Port {
    Admin,
    Metrics,
    Ready,
}

impl Servers {
    /// Answers until `stop`.
    pub async fn run(self, admin: Arc<Admin>, stop: CancellationToken) {
        tokio::join!(
            accept(self.admin, Port::Admin, &admin, &stop),
            accept(self.metrics, Port::Metrics, &admin, &stop),
            accept(self.ready, Port::Ready, &admin, &stop),
        );
    }
}

async fn accept(listener: TcpListener, port: Port, admin: &Arc<Admin>, stop: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    // Dropped at the end, and with it what is still open.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept_one(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, slot)) => {
                let admin = Arc::clone(admin);
                connections.spawn(async move {
                    serve(stream, port, &admin).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, ?port, "administration socket does not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_one(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(|_| std::io::Error::other("the semaphore is never closed"))?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn serve(stream: TcpStream, port: Port, admin: &Admin) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), port, admin).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, ?port, "administration connection failed"),
        Err(_) => debug!(?port, "administration connection was too slow"),
    }
}

async fn answer(method: &Method, path: &str, port: Port, admin: &Admin) -> Response<Full<Bytes>> {
    let get = method == Method::GET;
    match (port, path) {
        (Port::Ready, "/healthz/ready") if get => ready(&admin.readiness),
        (Port::Metrics, "/metrics" | "/stats/prometheus") if get => metrics(&admin.registry),
        (Port::Admin, "/config_dump") if get => {
            let dump = format!("{:#}\n", admin.dump.json().await);
            response(StatusCode::OK, "application/json", dump)
        }
        (Port::Admin, "/quitquitquit") if method == Method::POST => {
            info!("told to stop by POST /quitquitquit");
            admin.quit.cancel();
            text(StatusCode::OK, "shutting down\n")
        }
        (Port::Ready, "/healthz/ready")
        | (Port::Metrics, "/metrics" | "/stats/prometheus")
        | (Port::Admin, "/config_dump") => text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"),
        (Port::Admin, "/quitquitquit") => text(StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
        (Port::Admin, _) => {
            text(StatusCode::NOT_FOUND, "here are /config_dump and POST /quitquitquit\n")
        }
        (Port::Metrics, _) => text(StatusCode::NOT_FOUND, "here is /metrics\n"),
        (Port::Ready, _) => text(StatusCode::NOT_FOUND, "here is /healthz/ready\n"),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let waiting = readiness.waiting();
    if waiting.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let lines: String = waiting.iter().map(|what| format!("waiting for {what}\n")).collect();
    text(StatusCode::INTERNAL_SERVER_ERROR, lines)
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => response(StatusCode::OK, METRICS_TYPE, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<String>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.into())));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
