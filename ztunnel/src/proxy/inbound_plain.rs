//! Plaintext that arrives at the pod (port 15006): from outside the mesh, and judged
//! without an identity.

use std::net::SocketAddr;
use std::sync::Arc;

use netns::original_dst;
use tokio::net::TcpStream;

use super::app_socket::AppSocket;
use super::pod::PodShared;
use super::refusal::Refusal;
use super::report::{Counted, canonical, client, failure, inbound, refused, stranger};
use super::splice::splice;
use super::target::own_port;
use crate::telemetry::{Failure, ResponseFlags};

/// One accepted connection, to its end.
pub(super) async fn serve(pod: Arc<PodShared>, remote: AppSocket, addr: SocketAddr) {
    let _counted = Counted::new(&pod.inbound);
    let source = canonical(addr);
    let mut changes = pod.context.view.changes();
    let destination = match destination(&remote) {
        Ok(destination) => destination,
        Err(refusal) => {
            let local = remote.local_addr().map_or(source, canonical);
            return refused(&pod, inbound(&pod, None, stranger(source), local, None), &refusal);
        }
    };
    let connection = mesh::Connection { source, identity: None, destination };
    let known = match pod.admit(&connection).await {
        Ok(known) => known,
        Err(refusal) => {
            let view = pod.context.view.current();
            let network = &pod.context.settings.network;
            let src = client(view.as_deref(), network, source, None);
            return refused(&pod, inbound(&pod, None, src, destination, None), &refusal);
        }
    };
    let src = client(Some(&known.0), &known.1.network, source, None);
    let facts = inbound(&pod, Some(&known), src, destination, None);
    let guard = pod.context.telemetry.open(facts);
    let moved = (|n| guard.add_received(n), |n| guard.add_sent(n));
    let result = tokio::select! {
        result = carry(&pod, &remote, source, destination, moved) => result,
        offence = pod.offence(&connection, &mut changes) => Err(offence.failure()),
    };
    if result.is_ok() {
        remote.finished();
    }
    guard.close(result);
}

fn destination(tcp: &TcpStream) -> Result<SocketAddr, Refusal> {
    let dst = original_dst(tcp).map_err(|_| Refusal::NotRedirected)?;
    let local = tcp.local_addr().map_err(|_| Refusal::NotRedirected)?;
    if dst.0 == canonical(local) {
        return Err(Refusal::NotRedirected);
    }
    own_port(dst.0)?;
    Ok(dst.0)
}

async fn carry(
    pod: &PodShared,
    remote: &AppSocket,
    source: SocketAddr,
    destination: SocketAddr,
    (received, sent): (impl Fn(u64), impl Fn(u64)),
) -> Result<(), Failure> {
    let torn = |error: std::io::Error| failure(ResponseFlags::None, &error);
    let app = pod.dialer.dial_app(Some(source.ip()), destination).await;
    let app = app.map_err(|e| failure(ResponseFlags::Connect, &e))?;
    tokio::select! {
        result = splice(remote, &app, received, sent) => result.map_err(torn)?,
        error = remote.broken() => return Err(torn(error)),
        error = app.broken() => return Err(torn(error)),
    }
    app.finished();
    Ok(())
}
