//! Who a pod is to its peers: its names in the API, in the trust domain that the control
//! plane says. In another trust domain it is somebody else, with a certificate of its own.

use std::sync::Arc;

use mesh::Identity;
use tokio::sync::watch;

use crate::identity::{Certificates, CertifiedIdentity, IdentityError, Lease};

/// The identity of one pod, which the control plane may change while the pod is served.
#[derive(Debug)]
pub(super) struct OwnIdentity {
    certificates: Certificates,
    lease: watch::Sender<Option<Arc<Lease>>>,
}

impl OwnIdentity {
    /// With a guess, its certificate is fetched already; without one, whoever needs a
    /// certificate waits until the control plane has said who the pod is.
    pub(super) fn new(certificates: &Certificates, guess: Option<&Identity>) -> Self {
        let lease = guess.map(|identity| Arc::new(certificates.lease(identity)));
        Self { certificates: certificates.clone(), lease: watch::Sender::new(lease) }
    }

    /// Takes the word of the control plane. `true` if it is news.
    pub(super) fn confirm(&self, identity: &Identity) -> bool {
        self.lease.send_if_modified(|lease| {
            let is_news = lease.as_ref().is_none_or(|lease| lease.identity() != identity);
            if is_news {
                *lease = Some(Arc::new(self.certificates.lease(identity)));
            }
            is_news
        })
    }

    /// As far as it is known.
    pub(super) fn known(&self) -> Option<Identity> {
        self.lease.borrow().as_ref().map(|lease| lease.identity().clone())
    }

    /// Waits until it is known, for ever if need be.
    pub(super) async fn identity(&self) -> Identity {
        lease(&mut self.lease.subscribe()).await.identity().clone()
    }

    /// The certificate of the identity that the pod has by then. Bound the wait.
    ///
    /// # Errors
    /// Why the CA gives none.
    pub(super) async fn certificate(&self) -> Result<Arc<CertifiedIdentity>, Arc<IdentityError>> {
        let mut leases = self.lease.subscribe();
        loop {
            let lease = lease(&mut leases).await;
            tokio::select! {
                biased;
                certified = lease.certificate() => return certified,
                _ = leases.changed() => {}
            }
        }
    }

    /// Has connections begin anew after each renewal and each change, with the new
    /// certificate; what is open goes on.
    pub(super) async fn retire_tunnels(&self, pools: impl Fn() + Copy) {
        let mut leases = self.lease.subscribe();
        loop {
            let present = leases.borrow_and_update().clone();
            let renewals = async {
                match &present {
                    Some(lease) => each_renewal(lease, pools).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = renewals => {}
                changed = leases.changed() => if changed.is_err() { return },
            }
            pools();
        }
    }
}

/// Cancel-safe.
async fn lease(leases: &mut watch::Receiver<Option<Arc<Lease>>>) -> Arc<Lease> {
    loop {
        if let Some(lease) = leases.borrow_and_update().clone() {
            return lease;
        }
        if leases.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn each_renewal(lease: &Lease, renewed: impl Fn()) {
    let mut generation = lease.generation();
    loop {
        lease.renewed(generation).await;
        let before = std::mem::replace(&mut generation, lease.generation());
        // Who waited for the first certificate connects with that.
        if before > 0 {
            renewed();
        }
    }
}
