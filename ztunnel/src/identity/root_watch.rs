//! When the roots of the CA change, so do the trust bundles of workloads.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Certificates;
use crate::tls::FileWatch;

/// All nodes see a new root within the same minute; their renewals must not reach the CA
/// in one second. A certificate does not become wrong meanwhile.
const SPREAD: Duration = Duration::from_secs(30);

/// Renews all certificates when the file with the CA's roots changes, until `stop`: what
/// the CA answers then has the new roots too.
pub async fn follow_root(certificates: Certificates, file: PathBuf, stop: CancellationToken) {
    follow_root_within(certificates, file, SPREAD, stop).await;
}

pub(super) async fn follow_root_within(
    certificates: Certificates,
    file: PathBuf,
    spread: Duration,
    stop: CancellationToken,
) {
    let mut watch = FileWatch::new(&file);
    let mut seen = fs::read(&file).ok();
    while stop.run_until_cancelled(watch.maybe_changed()).await.is_some() {
        // A file that is away for a moment is not another root.
        let Ok(now) = fs::read(&file) else {
            continue;
        };
        if seen.as_ref().is_some_and(|seen| *seen != now) {
            tracing::info!(file = %file.display(),
                "roots of the CA have changed, certificates are renewed");
            certificates.renew_all(spread);
        }
        seen = Some(now);
    }
}
