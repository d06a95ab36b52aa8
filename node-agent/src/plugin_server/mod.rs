//! The plugin's door: one Unix socket, one request and one reply for each connection.

mod door;
mod frame;
mod known;

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plugin_api::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::reconcile::Reconciler;
use door::Door;

pub use frame::ReceiveError;

/// Requests worked on at once; more wait in the kernel.
const AT_ONCE: usize = 64;

/// How often the agent touches the socket's folder, which tells a plugin that finds nobody how
/// long that has been so.
const SIGN: Duration = Duration::from_secs(5);

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", .path.display())]
pub struct ServerError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabel {
    response_code: u32,
}

/// The room's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<ResponseLabel, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "requests of the CNI plugin, by the CNI error code they were answered with";
        registry.register("istio_cni_plugin_requests", help, self.requests.clone());
    }

    /// 0 stands for success, as it does in the plugin's exit status.
    fn answered(&self, outcome: &Outcome) {
        let response_code = match outcome {
            Outcome::Error { code, .. } => code.cni(),
            Outcome::Captured | Outcome::NotInMesh { .. } | Outcome::Done => 0,
            Outcome::Ready { .. } | Outcome::Collected { .. } => 0,
        };
        self.requests.get_or_create(&ResponseLabel { response_code }).inc();
    }
}

/// Listens for the plugin.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    reconciler: Reconciler,
    metrics: Metrics,
}

impl Server {
    /// Opens the socket for root alone. To be called by the holder of the run directory's
    /// lock: a socket that is there already is nobody's.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(
        path: &Path,
        reconciler: Reconciler,
        metrics: Metrics,
    ) -> Result<Self, ServerError> {
        let failed = |step| move |source| ServerError { step, path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the stale socket")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("listen for the plugin at"))?;
        let owner_only = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, owner_only).map_err(failed("restrict"))?;
        Ok(Self { listener, path: path.to_owned(), reconciler, metrics })
    }

    /// Answers until `stop`; what is under way then is taken back or ends.
    pub async fn run(self, stop: CancellationToken) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let requests = TaskTracker::new();
        requests.spawn(leave_signs(self.path.clone(), stop.clone()));
        requests.spawn(known::keep(self.reconciler.clone(), stop.clone()));
        loop {
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
                break;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let door = Door {
                        reconciler: self.reconciler.clone(),
                        metrics: self.metrics.clone(),
                        stop: stop.clone(),
                    };
                    requests.spawn(async move {
                        door.answer(stream).await;
                        drop(turn);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept the plugin");
                    // Out of descriptors, most likely: others must close some first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        requests.close();
        requests.wait().await;
    }
}

async fn leave_signs(socket: PathBuf, stop: CancellationToken) {
    let Some(folder) = socket.parent() else { return };
    loop {
        let touched = File::open(folder).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(folder = %folder.display(), %error, "no sign of life is left");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SIGN) => {}
        }
    }
}

#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod tests;
