//! What the runtime asks about the node: is the agent ready for ADD, and which attachments
//! are stale. And how one sandbox is let go.

use std::collections::BTreeSet;
use std::time::Duration;

use plugin_api::AttachmentKey;

use super::run::Reconciler;
use crate::facts::PodName;
use crate::pod_netns::{Record, StoreError};

/// How long GC waits for all of its pods' turns, within the plugin's own patience.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether an ADD would be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Yes.
    Yes,
    /// For pods outside the mesh: nobody is there to serve others.
    WithoutZtunnel,
    /// The first lists of the API are missing.
    NotYet {
        /// Pods of an earlier life of the agent that nobody has looked at since.
        pods: usize,
    },
}

/// Why a sandbox was not let go.
#[derive(Debug, thiserror::Error)]
pub enum LetGoError {
    /// It takes longer, and goes on.
    #[error("pod {pod} is still being let go")]
    Underway {
        /// Which pod.
        pod: PodName,
    },
    /// Its record is still on disk.
    #[error("forget pod {pod}: {source}")]
    Forget {
        /// Which pod.
        pod: PodName,
        /// Why not.
        source: StoreError,
    },
}

/// What GC left; the rest was let go.
#[derive(Debug, thiserror::Error)]
#[error("{} of {stale} stale attachments are left: {}", .left.len(), list(.left))]
pub struct CollectError {
    stale: usize,
    left: Vec<LetGoError>,
}

impl Reconciler {
    /// STATUS.
    #[must_use]
    pub fn readiness(&self) -> Ready {
        let table = self.table();
        if !table.synced() {
            let known = table.pods().filter(|(_, pod)| pod.attachment.is_some());
            return Ready::NotYet { pods: known.count() };
        }
        drop(table);
        if self.inner.effects.link.is_live() { Ready::Yes } else { Ready::WithoutZtunnel }
    }

    /// GC: lets go of the sandboxes whose attachment to `network` is not `valid`, as if DEL
    /// had come for each, and says how many. Those of other networks, and those of which
    /// nobody has told the network, are not touched.
    ///
    /// # Errors
    /// [`CollectError`] with all that failed; it holds up nothing else.
    pub async fn collect(
        &self,
        network: &str,
        valid: &[AttachmentKey],
    ) -> Result<usize, CollectError> {
        let valid: BTreeSet<_> = valid.iter().map(key).collect();
        let mut stale = self.inner.effects.store.all().await;
        stale.retain(|record| {
            let attachment = (record.container_id.as_str(), record.ifname.as_str());
            record.network.as_deref() == Some(network) && !valid.contains(&attachment)
        });
        let stale_count = stale.len();
        let ends = stale.into_iter().map(|record| self.let_go(record, PATIENCE));
        let ended = futures_util::future::join_all(ends).await;
        let left: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        if left.is_empty() {
            Ok(stale_count)
        } else {
            Err(CollectError { stale: stale_count, left })
        }
    }

    /// The sandbox ends: nothing of it is kept. What takes longer than `patience` is done
    /// afterwards.
    pub(super) async fn let_go(
        &self,
        record: Record,
        patience: Duration,
    ) -> Result<(), LetGoError> {
        let Record { uid, name: pod, container_id, .. } = record;
        self.change(|table| table.end(&uid, &container_id));
        self.wake(&uid);
        // A pod that the table does not know has nothing to be ended but its record.
        let ended = || self.table().get(&uid).is_none_or(|pod| !pod.ending);
        let mut changes = self.changes();
        let wait = async { drop(changes.wait_for(|_| ended()).await) };
        let in_time = tokio::time::timeout(patience, wait).await.is_ok();
        if let Err(source) = self.inner.effects.store.forget(&uid, &container_id).await {
            return Err(LetGoError::Forget { pod, source });
        }
        if in_time { Ok(()) } else { Err(LetGoError::Underway { pod }) }
    }
}

fn key(attachment: &AttachmentKey) -> (&str, &str) {
    (&attachment.container_id, &attachment.ifname)
}

fn list(left: &[LetGoError]) -> String {
    left.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plugin_api::{Outcome, Verb};

    use crate::facts::PodUid;
    use crate::testing::{FakeApi, Node, ScratchPod, eventually};

    #[tokio::test(flavor = "multi_thread")]
    async fn gc_goes_on_past_a_pod_that_takes_too_long_and_names_it() {
        let (folder, api) = (tempfile::tempdir().unwrap(), FakeApi::new());
        let (web, db) = (ScratchPod::new(), ScratchPod::new());
        let node = Node::start(folder.path(), &api).await;
        let ztunnel = node.ztunnel(None).await;
        for (name, pod) in [("web", &web), ("db", &db)] {
            api.add_pod(name, None);
            api.label(name, Some("ambient"));
            assert_eq!(node.call(Verb::Add, name, pod).await, Outcome::Captured);
        }
        let slot = node.reconciler.slot(&PodUid("uid-web".into()));
        let turn = Arc::clone(&slot.held).lock_owned().await;
        let error = node.reconciler.collect("lab", &[]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 of 2 stale attachments are left: pod shop/web is still being let go"
        );
        assert!(!ztunnel.serves("uid-db") && ztunnel.serves("uid-web"));

        drop(turn);
        eventually("it is let go afterwards", || async { !ztunnel.serves("uid-web") }).await;
        assert_eq!(node.reconciler.collect("lab", &[]).await.unwrap(), 0);
        node.stop().await;
    }
}
