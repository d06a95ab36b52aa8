//! Keeps the table up to date and shows snapshots of it. When the API is lost the last
//! good state stays, and the watch is tried again with growing pauses.

use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use super::objects::{AuthorizationPolicy, Pod};
use crate::facts::{PodFacts, PolicyFacts};
use crate::table::{Outcome, Table};
use crate::world::World;

/// A snapshot is shown at the latest after so many events, also when they do not end.
const BATCH: usize = 256;

type Seen<K> = Result<Event<K>, watcher::Error>;

/// One thing that the API told.
enum Input {
    Pod(Seen<Pod>),
    Policy(Seen<AuthorizationPolicy>),
}

/// Runs until it is stopped.
pub(crate) async fn watch(
    client: Client,
    table: Table,
    worlds: Sender<Option<Arc<World>>>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default;
    let pods = watcher(Api::<Pod>::all(client.clone()), config()).default_backoff();
    let policies = watcher(Api::<AuthorizationPolicy>::all(client), config()).default_backoff();
    let inputs = stream::select(pods.map(Input::Pod), policies.map(Input::Policy));
    let watched = run(Box::pin(inputs), Watched::new(table), worlds);
    if stop.run_until_cancelled(watched).await.is_some() {
        tracing::error!("the watch of the Kubernetes API has ended: the last state is kept");
    }
}

/// Takes in events as they come, and shows the outcome whenever no further one is there
/// yet: a burst is shown once.
async fn run(
    mut inputs: impl Stream<Item = Input> + Unpin,
    mut watched: Watched,
    worlds: Sender<Option<Arc<World>>>,
) {
    while let Some(first) = inputs.next().await {
        watched.on(first);
        for _ in 1..BATCH {
            match inputs.next().now_or_never() {
                Some(Some(next)) => watched.on(next),
                _ => break,
            }
        }
        if let Some(world) = watched.table.snapshot() {
            worlds.send_replace(Some(Arc::new(world)));
        }
    }
}

/// The table, and the lists that are being received: they count when they are complete.
struct Watched {
    table: Table,
    pods: Vec<PodFacts>,
    policies: Vec<PolicyFacts>,
}

impl Watched {
    fn new(table: Table) -> Self {
        Self { table, pods: Vec::new(), policies: Vec::new() }
    }

    fn on(&mut self, input: Input) {
        match input {
            Input::Pod(Ok(event)) => self.on_pod(event),
            Input::Policy(Ok(event)) => self.on_policy(event),
            Input::Pod(Err(error)) => {
                tracing::warn!(what = "pods", %error, "watch interrupted, the last state is kept");
            }
            Input::Policy(Err(error)) => self.on_policy_error(&error),
        }
    }

    fn on_pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.pods.clear(),
            Event::InitApply(pod) => self.pods.push(pod.into()),
            Event::InitDone => {
                let pods = std::mem::take(&mut self.pods);
                tracing::info!(pods = pods.len(), "pods listed");
                self.table.pods_listed(pods);
            }
            Event::Apply(pod) => self.table.pod_seen(pod.into()),
            Event::Delete(pod) => self.table.pod_gone(&pod.key()),
        }
    }

    fn on_policy(&mut self, event: Event<AuthorizationPolicy>) {
        match event {
            Event::Init => self.policies.clear(),
            Event::InitApply(policy) => self.policies.extend(policy.facts()),
            Event::InitDone => {
                let policies = std::mem::take(&mut self.policies);
                tracing::info!(policies = policies.len(), "authorization policies listed");
                let outcomes = self.table.policies_listed(&policies);
                for (policy, outcome) in policies.iter().zip(&outcomes) {
                    log(policy, outcome);
                }
            }
            Event::Apply(policy) => {
                if let Some(policy) = policy.facts() {
                    let outcome = self.table.policy_seen(&policy);
                    log(&policy, &outcome);
                }
            }
            Event::Delete(policy) => {
                if let Some(key) = policy.key() {
                    self.table.policy_gone(&key);
                    tracing::info!(policy = %key, "policy withdrawn");
                }
            }
        }
    }

    /// A cluster in which nobody installed the type has no policies, which is something
    /// else than not knowing them.
    fn on_policy_error(&mut self, error: &watcher::Error) {
        if !is_not_found(error) {
            let what = "authorization policies";
            tracing::warn!(what, %error, "watch interrupted, the last state is kept");
        } else if !self.table.policies_are_known() {
            tracing::warn!(
                "the cluster has no authorizationpolicies.security.istio.io: no policy is \
                 enforced until their CustomResourceDefinition is installed"
            );
            self.table.no_policies_exist();
        }
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) =
        error
    else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 404)
}

fn log(policy: &PolicyFacts, outcome: &Outcome) {
    let policy = &policy.key;
    match outcome {
        Outcome::Sent { narrowed, dropped } if narrowed.is_empty() && dropped.is_empty() => {
            tracing::info!(%policy, "policy sent");
        }
        Outcome::Sent { narrowed, dropped } => tracing::warn!(
            %policy, ?narrowed, ?dropped,
            "policy sent, but rules with HTTP attributes cannot be enforced here: an ALLOW rule \
             was dropped, a DENY rule is enforced without them (narrowed) or has no effect \
             (dropped)"
        ),
        Outcome::NotSent(reason) => tracing::warn!(%policy, %reason, "policy not sent"),
        Outcome::Kept(problem) => tracing::error!(
            %policy, %problem,
            "policy is malformed: the last good version stays in force until it is corrected"
        ),
        Outcome::Refused(problem) => tracing::error!(
            %policy, %problem, "policy is malformed: it is not in force until it is corrected"
        ),
    }
}
