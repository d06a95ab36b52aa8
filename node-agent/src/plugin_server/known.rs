//! Which pods may start while no agent answers: those that are known to be outside the mesh.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::enrollment::{Enrollment, Reason};
use crate::known_outside::Pods;
use crate::reconcile::{Reconciler, State};

/// Changes come in crowds, and who is to be captured is struck off at once by others.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the plugin is told that nothing has changed.
const SIGN: Duration = Duration::from_secs(10);

/// Keeps the list until `stop`; it stays for the time without an agent.
pub(super) async fn keep(reconciler: Reconciler, stop: CancellationToken) {
    let mut changes = reconciler.changes();
    loop {
        stand_by(&reconciler).await;
        let news = async {
            // The sender lives as long as the reconciler.
            let _ = tokio::time::timeout(SIGN, changes.changed()).await;
            tokio::time::sleep(SETTLE).await;
        };
        if stop.run_until_cancelled(news).await.is_none() {
            return;
        }
    }
}

/// Writes down who is outside, or that it still is so. An agent without its lists knows less than
/// the one before it, and one whose watch is broken no more than it did: labels may have changed.
/// The list gets old then, and is believed no more in the end.
pub(super) async fn stand_by(reconciler: &Reconciler) {
    if reconciler.is_up_to_date() {
        reconciler.known_outside().replace(|| outside(reconciler)).await;
    }
}

/// Pods with a reason that is a wish, and with nothing of ours in them.
fn outside(reconciler: &Reconciler) -> Pods {
    let settings = reconciler.settings();
    let table = reconciler.table();
    let pods = table.pods().filter(|(_, pod)| {
        pod.listed && !pod.ending && matches!(pod.state, State::Unknown | State::Outside)
    });
    let known = pods.filter_map(|(uid, pod)| {
        let Enrollment::Skip(reason) = table.wanted(uid, &settings)? else { return None };
        // A pod of the node's network is never asked about.
        let counts = reason.releases() && reason != Reason::HostNetwork;
        let facts = pod.facts.as_ref().filter(|facts| counts && !facts.terminating)?;
        Some((uid.clone(), facts.name.clone()))
    });
    known.collect()
}
