//! The certificates in use, each kept fresh by a task of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::Identity;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::IdentityError;
use super::ca::CaClient;
use super::certified::{CertifiedIdentity, Surroundings};
use super::keeper::{Keeper, Office, State};
use super::metrics;
use super::queue::Queue;
use super::summary::Summary;
use crate::tls::Terms;

/// Calls to the CA at one time; a node that starts with 200 pods must not flood it.
const CONCURRENCY: usize = 8;

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
    pub(super) async fn issue(
        &self,
        identity: &Identity,
        surroundings: &Surroundings<'_>,
    ) -> Result<CertifiedIdentity, IdentityError> {
        match self {
            Self::Service(client) => client.issue(identity, surroundings).await,
            #[cfg(test)]
            Self::Local(ca) => {
                let key = super::certified::KeyRequest::new(identity)?;
                ca.pass().await;
                let chain = ca.answer(key.csr()).map_err(|reason| IdentityError::Rejected {
                    identity: identity.clone(),
                    reason,
                })?;
                key.certify(&chain, surroundings)
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
    office: Arc<Office>,
    entries: Mutex<HashMap<Identity, Entry>>,
    /// Where certificates are kept: not where somebody happens to ask for one.
    runtime: Handle,
}

#[derive(Debug)]
struct Entry {
    leases: usize,
    state: watch::Receiver<State>,
    demand: Arc<Notify>,
    keeper: JoinHandle<()>,
}

impl Certificates {
    /// A store that has certificates signed by `ca`, with the default terms. Needs a
    /// runtime, which keeps them.
    #[must_use]
    pub fn new(ca: CaClient) -> Self {
        Self::with_terms(ca, &Terms::default())
    }

    /// A store that has certificates signed by `ca`; connections of their holders follow
    /// `terms`.
    #[must_use]
    pub fn with_terms(ca: CaClient, terms: &Terms) -> Self {
        Self::with_issuer_and_terms(Issuer::Service(ca), terms)
    }

    #[cfg(test)]
    pub(crate) fn with_issuer(issuer: Issuer) -> Self {
        Self::with_issuer_and_terms(issuer, &Terms::default())
    }

    pub(crate) fn with_issuer_and_terms(issuer: Issuer, terms: &Terms) -> Self {
        let office = Office {
            issuer,
            queue: Queue::new(CONCURRENCY),
            terms: terms.clone(),
            failures: Counter::default(),
            changes: watch::Sender::new(0),
            renewals: watch::Sender::new(Duration::ZERO),
        };
        let (office, entries) = (Arc::new(office), Mutex::default());
        Self { shared: Arc::new(Shared { office, entries, runtime: Handle::current() }) }
    }

    /// Registers gauges of their number and of the first one's end, and a counter of
    /// failures.
    pub fn register(&self, registry: &mut Registry) {
        metrics::register(self, &self.shared.office.failures, registry);
    }

    /// When each certificate expires.
    pub(super) fn ends(&self) -> Vec<Option<SystemTime>> {
        let entries = self.shared.entries();
        let end = |entry: &Entry| entry.state.borrow().current.as_ref().map(|c| c.not_after());
        entries.values().map(end).collect()
    }

    /// Has the identity's certificate fetched and kept while the lease lives.
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

    /// Counts the certificates obtained, of all identities: what was built with an older
    /// one may be replaced.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.office.changes.subscribe()
    }

    /// How many certificates this identity has had; `None` if none is kept.
    #[must_use]
    pub fn generation(&self, identity: &Identity) -> Option<u64> {
        self.shared.entries().get(identity).map(|entry| entry.state.borrow().generation)
    }

    /// Has all certificates renewed, each at a random moment `within` this time. Those
    /// there are stay in use until then.
    pub fn renew_all(&self, within: Duration) {
        self.shared.office.renewals.send_replace(within);
    }

    /// Who waits for a call to the CA.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.office.queue.waiting()
    }

    /// Does a connection wait among them?
    #[cfg(test)]
    pub(super) fn is_urgent(&self) -> bool {
        self.shared.office.queue.is_urgent()
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
            office: Arc::clone(&self.office),
            identity: identity.clone(),
            state: sender,
            demand: Arc::clone(&demand),
        };
        Entry { leases: 0, state, demand, keeper: self.runtime.spawn(keeper.run()) }
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

    /// How many certificates the identity has had so far. A tunnel that was made with an
    /// older one should take no new streams.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    /// Returns when there is a certificate newer than `generation`.
    pub async fn renewed(&self, generation: u64) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.generation > generation).await.is_err() {
            // Nothing is renewed any more.
            std::future::pending::<()>().await;
        }
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
