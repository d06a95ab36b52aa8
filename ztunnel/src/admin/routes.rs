//! What is answered where.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tracing::info;

use super::response::{Answer, answer, held, text};
use super::{Admin, Readiness, logging, metrics};

/// The three ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port {
    Admin,
    Metrics,
    Ready,
}

/// Large answers that may be on their way to readers, who may be slow on purpose: whoever
/// reaches the port for metrics may ask.
const LARGE: usize = 4;

/// Large answers are made one at a time, and a few are kept until they are read: together
/// they might not fit into memory.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) admin: Arc<Admin>,
    making: Mutex<()>,
    pub(super) large: Arc<Semaphore>,
}

impl Routes {
    pub(super) fn new(admin: Arc<Admin>) -> Self {
        Self { admin, making: Mutex::default(), large: Arc::new(Semaphore::new(LARGE)) }
    }

    pub(super) async fn answer(&self, port: Port, request: &Parts) -> Answer {
        match port {
            Port::Admin => self.on_admin(request).await,
            Port::Metrics => match request.uri.path() {
                "/metrics" | "/stats/prometheus" if request.method == Method::GET => {
                    let place = self.place().await;
                    let _one = self.making.lock().await;
                    metrics::metrics(&self.admin.registry, &request.headers, place)
                }
                "/metrics" | "/stats/prometheus" => get_only(),
                _ => text(StatusCode::NOT_FOUND, "here are /metrics and /stats/prometheus\n"),
            },
            Port::Ready => match request.uri.path() {
                "/healthz/ready" if request.method == Method::GET => ready(&self.admin.readiness),
                "/healthz/ready" => get_only(),
                _ => text(StatusCode::NOT_FOUND, "here is /healthz/ready\n"),
            },
        }
    }

    async fn on_admin(&self, request: &Parts) -> Answer {
        let get = request.method == Method::GET;
        match request.uri.path() {
            "/logging" => logging::answer(&request.method, request.uri.query(), &self.admin.levels),
            "/quitquitquit" if request.method == Method::POST => {
                info!("told to stop by POST /quitquitquit");
                self.admin.quit.cancel();
                text(StatusCode::OK, "shutting down\n")
            }
            "/quitquitquit" => text(StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
            "/" | "/config_dump" | "/debug/pprof/profile" | "/debug/pprof/heap" if !get => {
                get_only()
            }
            "/" => answer(StatusCode::OK, "text/html; charset=utf-8", DASHBOARD),
            "/config_dump" => self.dump().await,
            "/debug/pprof/profile" => text(StatusCode::NOT_IMPLEMENTED, NO_PROFILE),
            "/debug/pprof/heap" => text(StatusCode::NOT_IMPLEMENTED, NO_HEAP),
            _ => text(StatusCode::NOT_FOUND, "see / for what is here\n"),
        }
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.large).acquire_owned().await.expect("it is never closed")
    }

    async fn dump(&self) -> Answer {
        let place = self.place().await;
        let _one = self.making.lock().await;
        match self.admin.dump.json().await {
            Ok(json) => answer(StatusCode::OK, "application/json", held(json, place)),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

const NO_PROFILE: &str = "no profiler is built in: those that exist unwind the stack in a \
    signal handler, which can hang or crash the proxy; `perf record --call-graph dwarf -p \
    <pid>` on the node sees the same\n";

const NO_HEAP: &str = "no heap profiler is built in: it would slow every allocation down; \
    process_resident_memory_bytes on the metrics port tells the size\n";

const DASHBOARD: &str = "<!DOCTYPE html>
<html><head><title>ztunnel</title></head><body>
<h1>ztunnel</h1>
<ul>
<li><a href=\"config_dump\">config_dump</a>: all state, as JSON</li>
<li><a href=\"logging\">logging</a>: what is logged; POST changes it:
<code>/logging?level=access=debug,info</code>, <code>/logging?reset</code></li>
<li><code>POST /quitquitquit</code>: finish open connections and end</li>
</ul>
<p>Metrics are on port 15020, readiness is on port 15021.</p>
</body></html>
";

fn get_only() -> Answer {
    text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n")
}

fn ready(readiness: &Readiness) -> Answer {
    let waiting = readiness.waiting();
    if waiting.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let lines: String = waiting.iter().map(|what| format!("waiting for {what}\n")).collect();
    text(StatusCode::INTERNAL_SERVER_ERROR, lines)
}
