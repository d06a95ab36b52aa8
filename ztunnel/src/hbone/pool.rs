//! The connections of one pod to its peers, shared by its streams.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use http::HeaderMap;
use mesh::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim::{Claim, Patience, Retry};
use super::stream::TunnelStream;
use super::tunnel::{Room, Tunnel, handshake};
use super::{Connect, OpenError, Settings};

/// Streams share a connection only if all of this is the same: whose traffic it is, who
/// may answer, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Who we are.
    pub source: Identity,
    /// Whom we accept at the other end.
    pub accepted: Vec<Identity>,
    /// The peer's address.
    pub destination: SocketAddr,
}

type Attempt<E> = Pin<Box<dyn Future<Output = Result<Arc<Tunnel>, OpenError<E>>> + Send>>;

/// At most one connection per key takes new streams; a full one keeps those it has, and
/// the next is made. `E` is what dialling fails with. Dropping the pool ends all
/// connections.
#[derive(Debug)]
pub struct Pool<E> {
    shared: Arc<PoolShared<E>>,
    settings: Settings,
    drivers: TaskTracker,
    cut: CancellationToken,
}

#[derive(Debug)]
struct PoolShared<E> {
    slots: Mutex<HashMap<PoolKey, Slot<E>>>,
    ids: AtomicU64,
}

#[derive(Debug)]
struct Slot<E> {
    id: u64,
    state: SlotState<E>,
}

/// An attempt is weakly held: it lives in those who wait for it, and ends with the last
/// of them.
enum SlotState<E> {
    Connecting(WeakShared<Attempt<E>>),
    Ready(Arc<Tunnel>),
}

impl<E> std::fmt::Debug for SlotState<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting(_) => "Connecting",
            Self::Ready(_) => "Ready",
        })
    }
}

impl<E: Send + Sync + 'static> Pool<E> {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let slots = Mutex::default();
        Self {
            shared: Arc::new(PoolShared { slots, ids: AtomicU64::new(0) }),
            settings,
            drivers: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Opens a stream; `dial` is called if there is no connection with room. Returns the
    /// headers of the peer's answer too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open<Dial, Dialled, Io>(
        &self,
        key: &PoolKey,
        connect: &Connect,
        dial: Dial,
    ) -> Result<(TunnelStream, HeaderMap), OpenError<E>>
    where
        Dial: Fn() -> Dialled,
        Dialled: Future<Output = Result<Io, E>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // On the heap, so that a connection does not keep room for its beginning.
        Box::pin(self.open_now(key, connect, dial)).await
    }

    async fn open_now<Dial, Dialled, Io>(
        &self,
        key: &PoolKey,
        connect: &Connect,
        dial: Dial,
    ) -> Result<(TunnelStream, HeaderMap), OpenError<E>>
    where
        Dial: Fn() -> Dialled,
        Dialled: Future<Output = Result<Io, E>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = self.settings.response_deadline;
        match self.claim(key, &dial).await?.open(connect, deadline, Patience::Short).await {
            // The connection was about to end, or is dead: once more, with another one.
            Err((_, Retry::Yes)) if !self.cut.is_cancelled() => {
                let claim = self.claim(key, &dial).await?;
                let opened = claim.open(connect, deadline, Patience::Long).await;
                opened.map_err(|(error, _)| error)
            }
            other => other.map_err(|(error, _)| error),
        }
    }

    /// Opens the only stream of a connection that nobody else will use: one inside
    /// another stream, with TLS of its own. The connection ends with the stream.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_once<Io>(
        &self,
        io: Io,
        connect: &Connect,
    ) -> Result<(TunnelStream, HeaderMap), OpenError<E>>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (tunnel, driver) = Box::pin(handshake(io, &self.settings, || ())).await?;
        self.drivers.spawn(self.cut.clone().run_until_cancelled_owned(driver));
        let Room::Place(claim) = tunnel.claim() else { return Err(OpenError::Deadline) };
        tunnel.retire();
        drop(tunnel);
        let deadline = self.settings.response_deadline;
        let opened = Box::pin(claim.open(connect, deadline, Patience::Long)).await;
        opened.map_err(|(error, _)| error)
    }

    /// No connection that is there takes new streams, as after our credentials were
    /// renewed; the streams that are open go on.
    pub fn retire_all(&self) {
        let slots = std::mem::take(&mut *self.shared.slots());
        for slot in slots.into_values() {
            if let SlotState::Ready(tunnel) = slot.state {
                tunnel.retire();
            }
        }
    }

    /// Ends all connections and waits until they have ended.
    pub async fn close(&self) {
        self.cut.cancel();
        self.shared.slots().clear();
        self.drivers.close();
        self.drivers.wait().await;
    }

    /// Waits until no connection is left, without ending any.
    #[cfg(test)]
    pub(super) async fn idle(&self) {
        self.drivers.close();
        self.drivers.wait().await;
    }

    async fn claim<Dial, Dialled, Io>(
        &self,
        key: &PoolKey,
        dial: &Dial,
    ) -> Result<Claim, OpenError<E>>
    where
        Dial: Fn() -> Dialled,
        Dialled: Future<Output = Result<Io, E>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        loop {
            let (id, attempt) = match self.shared.join(key, |id| self.attempt(key, id, dial())) {
                Joined::Claimed(claim) => return Ok(claim),
                Joined::Unsettled(tunnel) => {
                    tunnel.settled(self.settings.response_deadline).await?;
                    continue;
                }
                Joined::Attempt(id, attempt) => (id, attempt),
            };
            let outcome = attempt.await;
            self.shared.settle(key, id, &outcome);
            if let Room::Place(claim) = outcome?.claim() {
                return Ok(claim);
            }
        }
    }

    fn attempt<Dialled, Io>(&self, key: &PoolKey, id: u64, dialled: Dialled) -> Attempt<E>
    where
        Dialled: Future<Output = Result<Io, E>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (settings, drivers) = (self.settings.clone(), self.drivers.clone());
        let (cut, shared) = (self.cut.clone(), Arc::downgrade(&self.shared));
        let key = key.clone();
        Box::pin(async move {
            let io = dialled.await.map_err(|error| OpenError::Dial(Arc::new(error)))?;
            let released = move || {
                if let Some(shared) = shared.upgrade() {
                    shared.forget(&key, id);
                }
            };
            let (tunnel, driver) = handshake(io, &settings, released).await?;
            drivers.spawn(cut.run_until_cancelled_owned(driver));
            Ok(tunnel)
        })
    }
}

impl<E> Drop for Pool<E> {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

enum Joined<E> {
    Claimed(Claim),
    /// To be waited for.
    Unsettled(Arc<Tunnel>),
    Attempt(u64, Shared<Attempt<E>>),
}

impl<E> PoolShared<E> {
    fn slots(&self) -> MutexGuard<'_, HashMap<PoolKey, Slot<E>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part in what there is for the key, or starts something new.
    fn join(&self, key: &PoolKey, start: impl FnOnce(u64) -> Attempt<E>) -> Joined<E> {
        let mut slots = self.slots();
        let known = slots.get(key).and_then(|slot| match &slot.state {
            SlotState::Ready(tunnel) => match tunnel.claim() {
                Room::Place(claim) => Some(Joined::Claimed(claim)),
                Room::Unsettled => Some(Joined::Unsettled(Arc::clone(tunnel))),
                Room::Full => None,
            },
            SlotState::Connecting(weak) => {
                weak.upgrade().map(|attempt| Joined::Attempt(slot.id, attempt))
            }
        });
        known.unwrap_or_else(|| {
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            let attempt = start(id).shared();
            let weak = attempt.downgrade().expect("not polled yet");
            slots.insert(key.clone(), Slot { id, state: SlotState::Connecting(weak) });
            Joined::Attempt(id, attempt)
        })
    }

    /// Whoever hears of an attempt's outcome first puts it in its place.
    fn settle(&self, key: &PoolKey, id: u64, outcome: &Result<Arc<Tunnel>, OpenError<E>>) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(key).filter(|slot| slot.id == id) else {
            return;
        };
        match outcome {
            Ok(tunnel) => slot.state = SlotState::Ready(Arc::clone(tunnel)),
            Err(_) => {
                slots.remove(key);
            }
        }
    }

    fn forget(&self, key: &PoolKey, id: u64) {
        let mut slots = self.slots();
        if slots.get(key).is_some_and(|slot| slot.id == id) {
            slots.remove(key);
        }
    }
}
