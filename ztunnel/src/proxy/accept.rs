//! Taking connections from a listener.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::app_socket::AppSocket;
use super::descriptors::exhausted;
use super::pod::{Life, PodShared};
use super::refusal::Refusal;
use super::report;
use crate::backoff::Backoff;
use crate::telemetry::Direction;
use crate::worker::Worker;

/// An accepted connection and where it lives.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) tcp: TcpStream,
    /// As the kernel knows it: of an IPv4 client perhaps mapped.
    pub(super) peer: SocketAddr,
    /// [`Worker::index`] of its worker.
    pub(super) worker: usize,
}

/// Gives each connection a task of its own, on the worker that accepts or on one that is
/// clearly less busy, until the pod is closing. Ours is the last handle of the listener
/// that lasts: it is closed, for us, with the end of this future.
///
/// What there is no descriptor for is shed here and at once, so that a crowd of it never
/// holds those that are kept back. `direction` is that of the connections.
pub(super) fn accept_loop<Served>(
    listener: Arc<TcpListener>,
    pod: Arc<PodShared>,
    (life, direction): (Life, Direction),
    accepting: Worker,
    serve: impl Fn(Arrival) -> Served + Clone + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    // Every pod has several of these: polled, because an async call keeps more.
    async move {
        let mut closing = pin!(life.closing.cancelled());
        loop {
            let accepted = poll_fn(|cx| match closing.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => listener.poll_accept(cx).map(Some),
            });
            let rest = match accepted.await {
                None => return,
                Some(Ok((tcp, peer))) => {
                    backoff.reset();
                    if !pod.may_keep(&tcp) {
                        shed(&pod, direction, tcp, peer);
                        continue;
                    }
                    // Fails only for a connection that is gone, which its task finds out.
                    let _ = pod.context.settings.tcp.apply(&tcp);
                    place(&pod, &life, &accepting, (tcp, peer), serve.clone());
                    None
                }
                Some(Err(error)) => rest_after(&error, &pod, &mut backoff),
            };
            let Some(rest) = rest else { continue };
            if Box::pin(life.closing.run_until_cancelled(sleep(rest))).await.is_none() {
                return;
            }
        }
    }
}

/// Closes a connection that there is no descriptor for.
fn shed(pod: &PodShared, direction: Direction, tcp: TcpStream, peer: SocketAddr) {
    pod.short_of_descriptors();
    report::refused(pod, report::shed(pod, direction, &tcp, peer), &Refusal::Descriptors);
    // Reset, so that nothing of it stays behind.
    drop(AppSocket::new(tcp));
}

/// How long to leave the listener alone.
fn rest_after(error: &io::Error, pod: &PodShared, backoff: &mut Backoff) -> Option<Duration> {
    if concerns_one(error) {
        return None;
    }
    // Most often out of descriptors: the connection stays in the queue, so the same error
    // would come again at once.
    pod.context.telemetry.accept_failed();
    if exhausted(error) {
        pod.short_of_descriptors();
    } else if backoff.worth_telling() {
        tracing::warn!(pod = %pod.name(), %error, "cannot accept connections");
    }
    Some(backoff.wait())
}

fn place<Served>(
    pod: &PodShared,
    life: &Life,
    accepting: &Worker,
    (tcp, peer): (TcpStream, SocketAddr),
    serve: impl Fn(Arrival) -> Served + Send + 'static,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let worker = pod.context.workers.place(accepting).clone();
    let index = worker.index();
    if index == accepting.index() {
        return life.spawn(&worker, serve(Arrival { tcp, peer, worker: index }));
    }
    // A socket belongs to the runtime that watches it. A failure means that it is gone.
    let Ok(std) = tcp.into_std() else { return };
    life.spawn(&worker, async move {
        let Ok(tcp) = TcpStream::from_std(std) else { return };
        // Boxed: this task would be as large as both others.
        Box::pin(serve(Arrival { tcp, peer, worker: index })).await;
    });
}

/// The connection ended while it was in the queue; the next may be fine.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
