//! The thread that holds the state and applies what is received.
//!
//! ```text
//! session ──bytes──► decode, apply, publish ──encoded reply──► session
//!    (runtime)            (this thread)            (runtime)
//! ```
//!
//! The view of a large mesh takes a while to build. Here that costs the runtime nothing:
//! it is built aside, and connections see the old one until the new one is swapped in.
//! Responses are applied one at a time and in order, and so are the replies.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use bytes::Bytes;
use mesh::View;
use mesh::proto::envoy::config::core::v3::Node;
use prost::{DecodeError, Message};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::state::{Outcome, State};
use super::wire::Envelope;
use super::{Metrics, ViewWriter};
use crate::admin::{Part, Readiness};

/// Rejected resources that are logged per response; the rest is counted.
const LOGGED_REJECTIONS: usize = 20;

/// Former views that are kept until no connection reads them any more, so that none has
/// to take one down.
const RETIRED_VIEWS: usize = 16;

/// Work for the thread.
type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// Hands work to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Applier {
    jobs: SyncSender<Job>,
}

/// The thread has ended by a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that applies responses has ended")]
pub struct Gone;

/// The state, and who needs to know of its changes.
#[derive(Debug)]
pub(super) struct Core {
    state: State,
    writer: ViewWriter,
    metrics: Metrics,
    readiness: Readiness,
    retired: Vec<Arc<View>>,
    /// How much was withheld when it was last told.
    withheld: usize,
}

/// What the session must know of a response that was applied.
#[derive(Debug)]
pub(super) struct Applied {
    /// To be sent.
    pub(super) reply: Bytes,
    /// See [`State::ask_again_at`].
    pub(super) ask_again_at: Option<Instant>,
}

impl Applier {
    /// Starts the thread.
    pub(super) fn start(core: Core) -> io::Result<Self> {
        // One session waits for each of its jobs; one more may be left over from a
        // session that was dropped.
        let (jobs, queue) = sync_channel(2);
        std::thread::Builder::new()
            .name("xds-apply".to_owned())
            .spawn(move || work(core, &queue))?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |core| {
            // Nobody listens any more when the process is being stopped.
            let _ = answer.send(job(core));
        });
        self.jobs.try_send(job).map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}

fn work(mut core: Core, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job(&mut core);
    }
}

impl Core {
    pub(super) fn new(
        state: State,
        writer: ViewWriter,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        let core = Self { state, writer, metrics, readiness, retired: Vec::new(), withheld: 0 };
        core.report();
        core
    }

    /// Was a whole view ever received?
    pub(super) fn complete(&self) -> bool {
        self.state.complete()
    }

    /// See [`State::claim_less`].
    pub(super) fn claim_less(&mut self) {
        self.state.claim_less();
    }

    /// The requests that open a stream, encoded.
    pub(super) fn opening(&mut self, node: Node) -> Vec<Bytes> {
        let demanded = self.writer.demand().map(|demand| demand.all()).unwrap_or_default();
        let requests = self.state.opening(node, &demanded);
        requests.iter().map(|request| request.encode_to_vec().into()).collect()
    }

    /// Lets a response change the view, and tells who needs to know.
    pub(super) fn apply(&mut self, bytes: Bytes) -> Result<Applied, DecodeError> {
        let size = bytes.len();
        let envelope = Envelope::decode(bytes)?;
        let url = envelope.type_url.clone();
        let (received, removed) = (envelope.resources.len(), envelope.removed.len());
        let outcome = self.state.on(envelope, Instant::now());
        let rejected = outcome.rejected.len();
        debug!(url, received, removed, rejected, withheld = outcome.withheld, "update applied");
        self.metrics.received(&url, size);
        self.metrics.rejected(&url, rejected);
        warn_of_rejected(&url, &outcome);
        if outcome.changed && self.state.complete() {
            self.publish();
        }
        if let Some(demand) = self.writer.demand() {
            demand.answered(&outcome.answered);
        }
        self.report();
        self.tell_of_withheld();
        let reply = outcome.reply.encode_to_vec().into();
        Ok(Applied { reply, ask_again_at: self.state.ask_again_at() })
    }

    fn publish(&mut self) {
        let former = self.writer.replace(self.state.view().clone());
        self.retired.extend(former);
        self.retired.retain(|view| Arc::strong_count(view) > 1);
        let excess = self.retired.len().saturating_sub(RETIRED_VIEWS);
        self.retired.drain(..excess);
    }

    fn report(&self) {
        let missing = self.state.missing();
        let waiting = missing.iter().map(|what| format!("{what} from the control plane"));
        self.readiness.report(Part::ControlPlane, waiting.collect());
        for (url, count) in self.state.counts() {
            self.metrics.holds(url, count);
        }
    }

    /// Once when it begins and once when it ends.
    fn tell_of_withheld(&mut self) {
        let withheld: usize = self.state.counts().map(|(_, count)| count.withheld).sum();
        let held: usize = self.state.counts().map(|(_, count)| count.held).sum();
        let before = std::mem::replace(&mut self.withheld, withheld);
        if before == 0 && withheld > 0 {
            warn!(
                withheld,
                held,
                "the control plane removes more than half of what there is: it stays in use \
                 until told again after XDS_MASS_REMOVAL_HOLD"
            );
        } else if before > 0 && withheld == 0 {
            info!(before, held, "removals that were held back are settled");
        }
    }
}

fn warn_of_rejected(url: &str, outcome: &Outcome) {
    for (name, reason) in outcome.rejected.iter().take(LOGGED_REJECTIONS) {
        warn!(url, resource = name, %reason, "resource from the control plane rejected");
    }
    let more = outcome.rejected.len().saturating_sub(LOGGED_REJECTIONS);
    if more > 0 {
        warn!(url, more, "further resources from the control plane rejected");
    }
}
