//! Taking connections from a listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::app_socket::tune;
use super::pod::Life;
use crate::backoff::Backoff;

/// Whether the next connection may be taken.
#[derive(Debug)]
pub(super) enum Gate {
    /// Always.
    Open,
    /// When a place is free; until then it waits in the kernel's queue.
    Limited(Arc<Semaphore>),
}

/// A place behind a [`Gate`], free again when dropped.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

impl Gate {
    async fn pass(&self) -> Permit {
        match self {
            Self::Open => None,
            Self::Limited(places) => Arc::clone(places).acquire_owned().await.ok(),
        }
    }
}

/// Gives each connection a task of its own, until the pod is closing. Ours is the last
/// handle of the listener that lasts: it is closed, for us, with the end of this future.
pub(super) async fn accept_loop<Served>(
    listener: Arc<TcpListener>,
    life: Life,
    gate: Gate,
    serve: impl Fn(TcpStream, SocketAddr, Permit) -> Served + Send,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        let next = async {
            let permit = gate.pass().await;
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = life.closing.run_until_cancelled(next).await else {
            return;
        };
        match accepted {
            Ok((tcp, peer)) => {
                backoff.reset();
                // Fails only for a connection that is gone, which its task finds out.
                let _ = tune(&tcp);
                life.spawn(serve(tcp, peer, permit));
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                // Most often out of descriptors: the connection stays in the queue, so
                // the same error would come again at once.
                let wait = backoff.wait();
                tracing::warn!(%error, retry_in = ?wait, "cannot accept connections");
                sleep(wait).await;
            }
        }
    }
}

/// The connection ended while it was in the queue; the next may be fine.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
