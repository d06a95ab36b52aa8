//! Taking connections from a listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::pod::{Life, PodShared};
use crate::backoff::Backoff;
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
pub(super) async fn accept_loop<Served>(
    listener: Arc<TcpListener>,
    pod: Arc<PodShared>,
    life: Life,
    accepting: Worker,
    serve: impl Fn(Arrival) -> Served + Clone + Send + 'static,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        let Some(accepted) = life.closing.run_until_cancelled(listener.accept()).await else {
            return;
        };
        match accepted {
            Ok((tcp, peer)) => {
                backoff.reset();
                // Fails only for a connection that is gone, which its task finds out.
                let _ = pod.context.settings.tcp.apply(&tcp);
                place(&pod, &life, &accepting, (tcp, peer), serve.clone());
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                // Most often out of descriptors: the connection stays in the queue, so
                // the same error would come again at once.
                let wait = backoff.wait();
                tracing::warn!(pod = %pod.name(), %error, retry_in = ?wait,
                    "cannot accept connections");
                sleep(wait).await;
            }
        }
    }
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
