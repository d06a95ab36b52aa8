//! Keeps the certificate of one identity fresh.
//!
//! ```text
//! issue ──ok──► rest until half of its life ──┐  a demand counts only once it has expired;
//!   ▲  └─failed─► pause 0.5 s … 150 s ──┐     │  a change of the CA's root ends the rest
//!   └───────────────────────────────────┴─────┘  early, at a random moment
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::IdentityError;
use super::certified::{CertifiedIdentity, Surroundings};
use super::overlap::Overlap;
use super::queue::{Permit, Queue, Urgency};
use super::store::Issuer;
use crate::backoff::Backoff;
use crate::tls::Terms;

/// Between two calls for one identity, also when connections are waiting for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(150);

/// A rest is planned by a clock that nobody sets; this often it is compared with the one
/// that certificates go by.
const LOOK: Duration = Duration::from_secs(60);

/// Certificates of one node must not all be renewed at one time.
const JITTER: f64 = 0.1;

/// What all keepers share.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) issuer: Issuer,
    pub(super) queue: Queue,
    pub(super) terms: Terms,
    /// Attempts.
    pub(super) failures: Counter,
    /// Counts certificates of all identities.
    pub(super) changes: watch::Sender<u64>,
    /// Everything shall be renewed, within this time.
    pub(super) renewals: watch::Sender<Duration>,
}

/// What a keeper has.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) current: Option<Arc<CertifiedIdentity>>,
    /// Counts certificates.
    pub(super) generation: u64,
    pub(super) failures: u64,
    pub(super) error: Option<Arc<IdentityError>>,
}

impl State {
    pub(super) fn valid(&self) -> Option<Arc<CertifiedIdentity>> {
        self.current.clone().filter(|certified| !certified.expired(SystemTime::now()))
    }
}

pub(super) struct Keeper {
    pub(super) office: Arc<Office>,
    pub(super) identity: Identity,
    pub(super) state: watch::Sender<State>,
    pub(super) demand: Arc<Notify>,
}

impl Keeper {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
        let mut renewals = self.office.renewals.subscribe();
        let mut overlap = Overlap::default();
        loop {
            let permit = self.permit().await;
            renewals.mark_unchanged();
            let issued = self.issue(&mut overlap).await;
            drop(permit);
            match issued {
                Ok(certified) => {
                    backoff.reset();
                    let pause = certified.refresh_in(SystemTime::now());
                    let pause = pause.mul_f64(1.0 - JITTER * fastrand::f64()).max(SHORTEST_WAIT);
                    self.accept(certified);
                    self.rest(pause, &mut renewals).await;
                }
                Err(error) => {
                    let pause = backoff.wait();
                    self.reject(error, pause);
                    // Connections that wait may shorten the pause, not skip it.
                    sleep(SHORTEST_WAIT).await;
                    let rest = pause.saturating_sub(SHORTEST_WAIT);
                    let _ = timeout(rest, self.demanded()).await;
                }
            }
        }
    }

    /// A connection that comes while we wait makes it urgent.
    async fn permit(&self) -> Permit {
        let valid = self.state.borrow().valid().is_some();
        let urgency = if valid { Urgency::Refresh } else { Urgency::Start };
        tokio::select! {
            permit = self.office.queue.permit(urgency) => permit,
            () = self.demanded() => self.office.queue.permit(Urgency::Connection).await,
        }
    }

    /// Somebody waits, and there is nothing valid to give them.
    async fn demanded(&self) {
        loop {
            self.demand.notified().await;
            if self.state.borrow().valid().is_none() {
                return;
            }
        }
    }

    async fn issue(&self, overlap: &mut Overlap) -> Result<CertifiedIdentity, IdentityError> {
        let earlier = overlap.roots(SystemTime::now());
        let surroundings = Surroundings { terms: &self.office.terms, earlier_roots: &earlier };
        let certified = self.office.issuer.issue(&self.identity, &surroundings).await?;
        overlap.remember(certified.answered_roots(), certified.not_after());
        Ok(certified)
    }

    async fn rest(&self, pause: Duration, renewals: &mut watch::Receiver<Duration>) {
        let begun = Instant::now();
        let mut planned = begun + pause;
        while Instant::now() < planned {
            tokio::select! {
                () = sleep_until(planned.min(Instant::now() + LOOK)) => {}
                () = self.demanded() => {}
                Ok(()) = renewals.changed() => {
                    let within = *renewals.borrow_and_update();
                    planned = planned.min(Instant::now() + within.mul_f64(fastrand::f64()));
                }
            }
            // The clock was set forward, or the machine slept.
            if self.state.borrow().valid().is_none() {
                return sleep_until(begun + SHORTEST_WAIT).await;
            }
        }
    }

    fn accept(&self, certified: CertifiedIdentity) {
        tracing::info!(identity = %self.identity, "certificate obtained");
        let current = Some(Arc::new(certified));
        self.state.send_modify(|state| {
            let generation = state.generation + 1;
            *state = State { current, generation, failures: state.failures, error: None };
        });
        self.office.changes.send_modify(|changes| *changes += 1);
    }

    fn reject(&self, error: IdentityError, pause: Duration) {
        self.office.failures.inc();
        let kept = self.state.borrow().valid().is_some();
        tracing::warn!(identity = %self.identity, %error, retry_in = ?pause, kept,
            "no new certificate");
        self.state.send_modify(|state| {
            state.failures += 1;
            let error = Arc::new(error);
            // Something that has expired is told from something that never was.
            state.error = Some(match (&state.current, kept) {
                (Some(_), false) => {
                    let identity = self.identity.clone();
                    Arc::new(IdentityError::Expired { identity, cause: error })
                }
                _ => error,
            });
        });
    }
}
