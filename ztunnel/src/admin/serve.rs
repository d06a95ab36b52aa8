//! The three servers: short answers to few askers.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::routes::{Port, Routes};
use super::{Dump, Readiness};
use crate::backoff::Backoff;
use crate::per_address::PerAddress;
use crate::telemetry::log::Levels;

/// Askers at a time, per port; more wait in the accept queue.
const CONCURRENT: usize = 32;

/// Of these, askers with one address: a neighbour that only holds connections open must not
/// keep the kubelet and Prometheus out.
const PER_ADDRESS: usize = 8;

/// An asker has so long to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Bytes of a request's line and headers. Bodies are not read at all.
const REQUEST_SIZE: usize = 16 << 10;

/// After a failed accept, most often for want of descriptors; longer the longer it lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MOST: Duration = Duration::from_secs(1);

/// What the answers are made of.
#[derive(Debug)]
pub struct Admin {
    /// What is waited for.
    pub readiness: Readiness,
    /// All metrics.
    pub registry: Registry,
    /// All state.
    pub dump: Dump,
    /// What is logged.
    pub levels: Levels,
    /// Ends the process in good order.
    pub quit: CancellationToken,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Servers {
    pub(super) admin: TcpListener,
    pub(super) admin_v6: Option<TcpListener>,
    pub(super) metrics: TcpListener,
    pub(super) ready: TcpListener,
}

impl Servers {
    /// Answers until `stop`.
    pub async fn run(self, admin: Arc<Admin>, stop: CancellationToken) {
        let routes = Arc::new(Routes::new(admin));
        let admin_v6 = async {
            if let Some(listener) = self.admin_v6 {
                accept(listener, Port::Admin, &routes, &stop).await;
            }
        };
        tokio::join!(
            accept(self.admin, Port::Admin, &routes, &stop),
            admin_v6,
            accept(self.metrics, Port::Metrics, &routes, &stop),
            accept(self.ready, Port::Ready, &routes, &stop),
        );
    }
}

impl Port {
    /// An asker gets one answer and this long for all of it. Kubelets ask again soon, and
    /// Prometheus gives up after 10 s; a dump may be large and its reader far away.
    fn patience(self) -> Duration {
        match self {
            Self::Ready => Duration::from_secs(10),
            Self::Metrics => Duration::from_secs(20),
            Self::Admin => Duration::from_secs(60),
        }
    }
}

async fn accept(listener: TcpListener, port: Port, routes: &Arc<Routes>, stop: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    let askers = PerAddress::new(PER_ADDRESS);
    // Dropped at the end, and with it what is still open.
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(ACCEPT_PAUSE, ACCEPT_PAUSE_MOST);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept_one(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, ip, slot)) => {
                backoff.reset();
                // One too many is closed.
                let Some(asker) = askers.take(ip) else { continue };
                let routes = Arc::clone(routes);
                connections.spawn(async move {
                    serve(stream, port, &routes).await;
                    drop((slot, asker));
                });
            }
            Err(error) => {
                if backoff.worth_telling() {
                    warn!(%error, ?port, "administration socket does not accept");
                }
                let pause = tokio::time::sleep(backoff.wait());
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn accept_one(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(|_| std::io::Error::other("the semaphore is never closed"))?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), slot))
}

/// Answers the one request of a connection.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    port: Port,
    routes: &Routes,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let (request, _body) = request.into_parts();
        Ok::<_, Infallible>(routes.answer(port, &request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_SIZE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(port.patience(), connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, ?port, "administration connection failed"),
        Err(_) => debug!(?port, "administration connection was too slow"),
    }
}

#[cfg(test)]
mod tests;
