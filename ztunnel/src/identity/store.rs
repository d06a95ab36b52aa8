//! The certificates in use, each kept fresh by a task of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::Identity;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::IdentityError;
use super::ca::CaClient;
use super::certified::CertifiedIdentity;
use super::summary::Summary;
use crate::backoff::Backoff;

/// Calls to the CA at one time; a node that starts with 200 pods must not flood it.
const CONCURRENCY: usize = 8;

/// Between two calls for one identity, also when connections are waiting for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(150);

/// Who signs.
#[derive(Clone, Debug)]
pub(crate) enum Issuer {
    /// A certificate service.
    Service(CaClient),
    /// An authority in this process.
    #[cfg(test)]
    Local(crate::tls::test_ca::TestCa),
}

impl Issuer {
    async fn issue(&self, identity: &Identity) -> Result<CertifiedIdentity, IdentityError> {
        match self {
            Self::Service(client) => client.issue(identity).await,
            #[cfg(test)]
            Self::Local(ca) => {
                let key = super::certified::KeyRequest::new(identity)?;
                let chain = ca.answer(key.csr()).map_err(|reason| IdentityError::Rejected {
                    identity: identity.clone(),
                    reason,
                })?;
                key.certify(&chain)
            }
        }
    }
}

/// The certificate store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    issuer: Arc<Limited>,
    entries: Mutex<HashMap<Identity, Entry>>,
}

#[derive(Debug)]
struct Limited {
    issuer: Issuer,
    permits: Semaphore,
}

#[derive(Debug)]
struct Entry {
    leases: usize,
    state: watch::Receiver<State>,
    demand: Arc<Notify>,
    keeper: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    current: Option<Arc<CertifiedIdentity>>,
    failures: u64,
    error: Option<Arc<IdentityError>>,
}

impl State {
    fn valid(&self) -> Option<Arc<CertifiedIdentity>> {
        self.current.clone().filter(|certified| !certified.expired(SystemTime::now()))
    }
}

impl Certificates {
    /// A store that has certificates signed by `ca`.
    #[must_use]
    pub fn new(ca: CaClient) -> Self {
        Self::with_issuer(Issuer::Service(ca))
    }

    pub(crate) fn with_issuer(issuer: Issuer) -> Self {
        let issuer = Arc::new(Limited { issuer, permits: Semaphore::new(CONCURRENCY) });
        Self { shared: Arc::new(Shared { issuer, entries: Mutex::default() }) }
    }

    /// Has the identity's certificate fetched and kept while the lease lives. Needs a
    /// runtime.
    #[must_use]
    pub fn lease(&self, identity: &Identity) -> Lease {
        let mut entries = self.shared.entries();
        let entry = match entries.entry(identity.clone()) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(place) => place.insert(self.shared.start(identity)),
        };
        entry.leases += 1;
        Lease {
            shared: Arc::clone(&self.shared),
            identity: identity.clone(),
            state: entry.state.clone(),
            demand: Arc::clone(&entry.demand),
        }
    }

    /// What is kept, for people; without keys.
    #[must_use]
    pub fn summary(&self) -> Vec<Summary> {
        let entries = self.shared.entries();
        let mut all: Vec<_> = entries
            .iter()
            .map(|(identity, entry)| {
                let state = entry.state.borrow();
                Summary::new(identity, state.valid().as_deref(), state.error.as_deref())
            })
            .collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, identity: &Identity) -> Entry {
        let (sender, state) = watch::channel(State::default());
        let demand = Arc::new(Notify::new());
        let keeper = Keeper {
            issuer: Arc::clone(&self.issuer),
            identity: identity.clone(),
            state: sender,
            demand: Arc::clone(&demand),
        };
        Entry { leases: 0, state, demand, keeper: tokio::spawn(keeper.run()) }
    }
}

/// The right to use one identity's certificate; while it lives, the certificate is kept.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    identity: Identity,
    state: watch::Receiver<State>,
    demand: Arc<Notify>,
}

impl Lease {
    /// Whose certificate it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The current certificate. While there is none, an attempt is started or joined,
    /// and its failure returned. An attempt ends within 16 s; bound the wait where that
    /// is too long.
    ///
    /// # Errors
    /// What the last attempt failed with.
    pub async fn certificate(&self) -> Result<Arc<CertifiedIdentity>, Arc<IdentityError>> {
        let mut state = self.state.clone();
        let failures_before = state.borrow().failures;
        loop {
            {
                let now = state.borrow_and_update();
                if let Some(certified) = now.valid() {
                    return Ok(certified);
                }
                if let Some(error) = now.error.clone().filter(|_| now.failures > failures_before) {
                    return Err(error);
                }
            }
            self.demand.notify_one();
            if state.changed().await.is_err() {
                return Err(Arc::new(IdentityError::Forgotten(self.identity.clone())));
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut entries = self.shared.entries();
        if let MapEntry::Occupied(mut entry) = entries.entry(self.identity.clone()) {
            entry.get_mut().leases -= 1;
            if entry.get().leases == 0 {
                entry.remove().keeper.abort();
            }
        }
    }
}

struct Keeper {
    issuer: Arc<Limited>,
    identity: Identity,
    state: watch::Sender<State>,
    demand: Arc<Notify>,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
        loop {
            match self.issue().await {
                Ok(certified) => {
                    backoff.reset();
                    let pause = certified.refresh_in(SystemTime::now()).max(SHORTEST_WAIT);
                    self.accept(certified);
                    sleep(pause).await;
                }
                Err(error) => {
                    let pause = backoff.wait();
                    self.reject(error, pause);
                    // Connections that wait may shorten the pause, not skip it.
                    sleep(SHORTEST_WAIT).await;
                    let rest = pause.saturating_sub(SHORTEST_WAIT);
                    let _ = timeout(rest, self.demand.notified()).await;
                }
            }
        }
    }

    async fn issue(&self) -> Result<CertifiedIdentity, IdentityError> {
        let _permit = self.issuer.permits.acquire().await;
        self.issuer.issuer.issue(&self.identity).await
    }

    fn accept(&self, certified: CertifiedIdentity) {
        tracing::info!(identity = %self.identity, "certificate obtained");
        let current = Some(Arc::new(certified));
        self.state.send_modify(|state| {
            *state = State { current, failures: state.failures, error: None };
        });
    }

    fn reject(&self, error: IdentityError, pause: Duration) {
        tracing::warn!(identity = %self.identity, %error, retry_in = ?pause, "no certificate");
        self.state.send_modify(|state| {
            state.failures += 1;
            state.error = Some(Arc::new(error));
        });
    }
}
