//! Certificates that are believed no more (CRL files).
//!
//! ```text
//! file ──watch──► lists ──► verifiers: new connections are refused
//!                   └─changes──► Peer::watch: open connections are cut
//! ```
//!
//! Whatever is wrong with a new file, the last good lists stay in force. A list past its
//! `nextUpdate` stays in force too: what it revokes stays revoked. Both are reported.

mod lists;
mod metrics;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use lists::RevokedCertificate;

use super::files::FileWatch;
use crate::telemetry::Reporter;
use lists::Lists;
use metrics::Metrics;

/// Why a file of revocation lists is not usable.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The file is not readable.
    #[error("read revocation lists {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It holds something else, or something broken.
    #[error("revocation lists {path}: {reason}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The revocation lists in force; by default there are none and everything is believed.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Revocation(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    lists: ArcSwap<Lists>,
    /// The file that they are from.
    seen: Mutex<Option<Vec<u8>>>,
    changes: watch::Sender<u64>,
    metrics: Metrics,
}

impl Revocation {
    /// Reads `path`. A file that is not there yet is like an empty one, because it may be
    /// mounted later; one that is there must be good.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn open(path: &Path, registry: &mut Registry) -> Result<Self, RevocationError> {
        let shared = Shared {
            path: path.to_owned(),
            lists: ArcSwap::default(),
            seen: Mutex::default(),
            changes: watch::Sender::new(0),
            metrics: Metrics::register(registry),
        };
        match shared.reload() {
            Ok(()) => {}
            Err(RevocationError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                tracing::warn!(path = %path.display(),
                    "no revocation lists yet: nothing counts as revoked until the file is there");
            }
            Err(error) => return Err(error),
        }
        Ok(Self(Some(Arc::new(shared))))
    }

    /// Counts the changes of the lists; `None` if there are none to change.
    #[must_use]
    pub fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.0.as_ref().map(|shared| shared.changes.subscribe())
    }

    /// The first certificate of `chain` (leaf first, already verified against `roots`)
    /// that was revoked.
    #[must_use]
    pub fn revoked(
        &self,
        chain: &[CertificateDer<'_>],
        roots: &RootCertStore,
    ) -> Option<RevokedCertificate> {
        self.0.as_ref()?.lists.load().revoked(chain, roots)
    }

    /// Counts a peer that was refused, or cut, because it is revoked.
    pub(super) fn count_rejection(&self, reporter: Reporter) {
        if let Some(shared) = &self.0 {
            shared.metrics.rejected(reporter);
        }
    }

    /// Counts a connection that cannot be followed, for want of a chain.
    pub(super) fn count_untracked(&self, reporter: Reporter) {
        if let Some(shared) = &self.0 {
            shared.metrics.untracked(reporter);
        }
    }

    /// Keeps the lists as the file has them, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(shared) = self.0 else {
            return;
        };
        let mut watch = FileWatch::new(&shared.path);
        // What changed before the watch began.
        let _ = shared.reload();
        shared.report_stale();
        while stop.run_until_cancelled(watch.maybe_changed()).await.is_some() {
            if let Err(error) = shared.reload() {
                tracing::warn!(%error, "the revocation lists read before stay in force");
            }
            shared.report_stale();
        }
    }
}

impl Shared {
    /// Does nothing if the file is as it was.
    fn reload(&self) -> Result<(), RevocationError> {
        let read = fs::read(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_deref() == read.as_deref().ok() && seen.is_some() {
            return Ok(());
        }
        *seen = Some(self.install(read).inspect_err(|_| self.metrics.unusable())?);
        Ok(())
    }

    fn install(&self, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, RevocationError> {
        let path = || self.path.clone();
        let bytes = read.map_err(|source| RevocationError::Read { path: path(), source })?;
        let wrong = |reason| RevocationError::Parse { path: path(), reason };
        let lists = Lists::parse(&bytes).map_err(wrong)?;
        if lists.is_empty() && !self.lists.load().is_empty() {
            // An emptied file is more often an accident than a pardon.
            return Err(wrong("is empty; to pardon, publish a list without entries".to_owned()));
        }
        tracing::info!(path = %self.path.display(), lists = lists.len(),
            revoked = lists.entries(), "revocation lists loaded");
        self.lists.store(Arc::new(lists));
        self.changes.send_modify(|generation| *generation += 1);
        Ok(bytes)
    }

    fn report_stale(&self) {
        let stale = self.lists.load().stale(SystemTime::now());
        if self.metrics.stale(stale) != stale && stale > 0 {
            tracing::warn!(path = %self.path.display(), stale,
                "revocation lists are past their next update and stay in force");
        }
    }
}
