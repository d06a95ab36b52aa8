//! Readiness, metrics and state over HTTP.

mod readiness;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use readiness::{Condition, Readiness};

use crate::enrollment::Enrollment;
use crate::facts::PodUid;
use crate::reconcile::{Pod, Reconciler};

/// Connections served at once.
const AT_ONCE: usize = 32;
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait until the port may be free again: the agent before us, or a second
/// one that waits for our lock, may hold it.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What the agent waits for.
    pub readiness: Readiness,
    /// All metrics.
    pub registry: Arc<Registry>,
    /// The pods, once there is something that keeps them.
    pub reconciler: Arc<std::sync::OnceLock<Reconciler>>,
}

impl Admin {
    /// Serves until `stop`.
    pub async fn run(self, addr: SocketAddr, stop: CancellationToken) {
        let Some(listener) = bind(addr, &stop).await else {
            return;
        };
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let connections = TaskTracker::new();
        loop {
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
                break;
            };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an admin connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (admin, stop) = (self.clone(), stop.clone());
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let response = admin.page(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = stop.cancelled() => {}
                    // What a client does wrong is between it and its connection.
                    _ = connection => {}
                }
                drop(turn);
            });
        }
        connections.close();
        connections.wait().await;
    }

    fn page(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/state" => self.state(),
            _ => text(StatusCode::NOT_FOUND, "pages: /readyz /healthz /metrics /state\n".into()),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let waits = self.readiness.waits_for();
        let remarks = self.readiness.remarks();
        let remarks: String = remarks.iter().map(|remark| format!("{remark}\n")).collect();
        if waits.is_empty() {
            return text(StatusCode::OK, format!("ok\n{remarks}"));
        }
        let lines: String = waits.iter().map(|wait| format!("waits for {wait}\n")).collect();
        text(StatusCode::SERVICE_UNAVAILABLE, lines + &remarks)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = String::new();
        match prometheus_client::encoding::text::encode(&mut page, &self.registry) {
            Ok(()) => content(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                page,
            ),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn state(&self) -> Response<Full<Bytes>> {
        let pods = self.reconciler.get().map(pods).unwrap_or_default();
        let state = json!({ "waitsFor": self.readiness.waits_for(),
            "remarks": self.readiness.remarks(), "pods": pods });
        content(StatusCode::OK, "application/json", format!("{state:#}\n"))
    }
}

fn pods(reconciler: &Reconciler) -> Vec<Value> {
    let table = reconciler.table();
    let settings = reconciler.settings();
    let wanted = |uid| table.wanted(uid, &settings);
    table.pods().map(|(uid, pod)| describe(uid, pod, wanted(uid))).collect()
}

fn describe(uid: &PodUid, pod: &Pod, wanted: Option<Enrollment>) -> Value {
    let enrollment = wanted.map(|wanted| match wanted {
        Enrollment::Capture(_) => "capture".to_owned(),
        Enrollment::Skip(reason) => format!("skip: {reason}"),
    });
    let facts = pod.facts.as_ref();
    let attachment = pod.attachment.as_ref();
    json!({
        "uid": uid,
        "namespace": facts.map(|facts| &facts.name.namespace),
        "name": facts.map(|facts| &facts.name.name),
        "enrollment": enrollment,
        "state": pod.state.name(),
        "trouble": pod.trouble,
        "containerID": attachment.map(|attachment| &attachment.container_id),
        "ips": attachment.map(|attachment| &attachment.ips),
        "redirection": facts.map(|facts| facts.annotations.redirection),
    })
}

async fn bind(addr: SocketAddr, stop: &CancellationToken) -> Option<TcpListener> {
    let mut told = false;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Some(listener),
            Err(error) if !told => {
                told = true;
                tracing::warn!(%addr, %error, "admin port is not free yet, trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(BIND_PAUSE) => {}
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    content(status, "text/plain; charset=utf-8", body)
}

fn content(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
