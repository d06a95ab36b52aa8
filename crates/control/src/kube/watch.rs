//! Keeps the table up to date and shows snapshots of it. When the API is lost the last
//! good state stays, and the watch is tried again with growing pauses.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use super::changes::{Change, changes};
use super::objects::{AuthorizationPolicy, EndpointSlice, Node, PeerAuthentication, Pod, Service};
use crate::facts::{NodeFacts, PeerFacts, PodFacts, PolicyFacts, ServiceFacts, SliceFacts};
use crate::table::{Outcome, PeerOutcome, Table};
use crate::world::World;

/// A snapshot is shown at the latest after so many events, also when they do not end.
const BATCH: usize = 256;

/// One thing that the API told.
enum Input {
    Pods(Told<PodFacts>),
    Nodes(Told<NodeFacts>),
    Services(Told<ServiceFacts>),
    Slices(Told<SliceFacts>),
    Policies(Told<PolicyFacts>),
    Peers(Told<PeerFacts>),
}

type Told<T> = Result<Change<T>, watcher::Error>;

/// Runs until it is stopped.
pub(crate) async fn watch(
    client: Client,
    table: Table,
    worlds: Sender<Option<Arc<World>>>,
    stop: CancellationToken,
) {
    let pods = changes(Api::<Pod>::all(client.clone()), |it| Some(it.into()));
    let nodes = changes(Api::<Node>::all(client.clone()), |it| Some(it.into()));
    let services = changes(Api::<Service>::all(client.clone()), |it| Some(it.into()));
    let slices = changes(Api::<EndpointSlice>::all(client.clone()), |it| Some(it.into()));
    let policies =
        changes(Api::<AuthorizationPolicy>::all(client.clone()), AuthorizationPolicy::facts);
    let peers = changes(Api::<PeerAuthentication>::all(client), PeerAuthentication::facts);
    let inputs: [BoxStream<'static, Input>; 6] = [
        pods.map(Input::Pods).boxed(),
        nodes.map(Input::Nodes).boxed(),
        services.map(Input::Services).boxed(),
        slices.map(Input::Slices).boxed(),
        policies.map(Input::Policies).boxed(),
        peers.map(Input::Peers).boxed(),
    ];
    let watched = run(stream::select_all(inputs), Watched { table }, worlds);
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

/// Tells the table what was seen, and the log what became of it.
struct Watched {
    table: Table,
}

impl Watched {
    fn on(&mut self, input: Input) {
        match input {
            Input::Pods(Ok(change)) => self.on_pods(change),
            Input::Nodes(Ok(change)) => self.on_nodes(change),
            Input::Services(Ok(change)) => self.on_services(change),
            Input::Slices(Ok(change)) => self.on_slices(change),
            Input::Policies(Ok(change)) => self.on_policies(change),
            Input::Peers(Ok(change)) => self.on_peers(change),
            Input::Pods(Err(error)) => interrupted("pods", &error),
            Input::Nodes(Err(error)) => interrupted("nodes", &error),
            Input::Services(Err(error)) => interrupted("services", &error),
            Input::Slices(Err(error)) => interrupted("endpoint slices", &error),
            Input::Policies(Err(error)) => self.on_policy_error(&error),
            Input::Peers(Err(error)) => self.on_peer_error(&error),
        }
    }

    fn on_pods(&mut self, change: Change<PodFacts>) {
        match change {
            Change::Listed(pods) => {
                tracing::info!(pods = pods.len(), "pods listed");
                self.table.pods_listed(pods);
            }
            Change::Seen(pod) => self.table.pod_seen(pod),
            Change::Gone(pod) => self.table.pod_gone(&pod.key()),
        }
    }

    fn on_nodes(&mut self, change: Change<NodeFacts>) {
        match change {
            Change::Listed(nodes) => {
                tracing::info!(nodes = nodes.len(), "nodes listed");
                self.table.nodes_listed(nodes);
            }
            Change::Seen(node) => self.table.node_seen(node),
            Change::Gone(node) => self.table.node_gone(&node.name),
        }
    }

    fn on_services(&mut self, change: Change<ServiceFacts>) {
        match change {
            Change::Listed(services) => {
                tracing::info!(services = services.len(), "services listed");
                self.table.services_listed(services);
            }
            Change::Seen(service) => self.table.service_seen(service),
            Change::Gone(service) => self.table.service_gone(&service.key()),
        }
    }

    fn on_slices(&mut self, change: Change<SliceFacts>) {
        match change {
            Change::Listed(slices) => {
                tracing::info!(slices = slices.len(), "endpoint slices listed");
                self.table.slices_listed(slices);
            }
            Change::Seen(slice) => self.table.slice_seen(slice),
            Change::Gone(slice) => self.table.slice_gone(&slice.key()),
        }
    }

    fn on_policies(&mut self, change: Change<PolicyFacts>) {
        match change {
            Change::Listed(policies) => {
                tracing::info!(policies = policies.len(), "authorization policies listed");
                let outcomes = self.table.policies_listed(&policies);
                for (policy, outcome) in policies.iter().zip(&outcomes) {
                    log(policy, outcome);
                }
            }
            Change::Seen(policy) => {
                let outcome = self.table.policy_seen(&policy);
                log(&policy, &outcome);
            }
            Change::Gone(policy) => {
                self.table.policy_gone(&policy.key);
                tracing::info!(policy = %policy.key, "policy withdrawn");
            }
        }
    }

    fn on_peers(&mut self, change: Change<PeerFacts>) {
        match change {
            Change::Listed(peers) => {
                tracing::info!(peers = peers.len(), "peer authentications listed");
                let outcomes = self.table.peers_listed(&peers);
                for (peer, outcome) in peers.iter().zip(&outcomes) {
                    log_peer(peer, outcome);
                }
            }
            Change::Seen(peer) => {
                let outcome = self.table.peer_seen(&peer);
                log_peer(&peer, &outcome);
            }
            Change::Gone(peer) => {
                self.table.peer_gone(&peer.key);
                tracing::info!(peer_authentication = %peer.key, "withdrawn");
            }
        }
    }

    /// As for policies.
    fn on_peer_error(&mut self, error: &watcher::Error) {
        if !is_not_found(error) {
            interrupted("peer authentications", error);
        } else if !self.table.peers_are_known() {
            tracing::warn!(
                "the cluster has no peerauthentications.security.istio.io: none is enforced \
                 until their CustomResourceDefinition is installed"
            );
            self.table.no_peers_exist();
        }
    }

    /// A cluster in which nobody installed the type has no policies, which is something
    /// else than not knowing them.
    fn on_policy_error(&mut self, error: &watcher::Error) {
        if !is_not_found(error) {
            interrupted("authorization policies", error);
        } else if !self.table.policies_are_known() {
            tracing::warn!(
                "the cluster has no authorizationpolicies.security.istio.io: no policy is \
                 enforced until their CustomResourceDefinition is installed"
            );
            self.table.no_policies_exist();
        }
    }
}

fn interrupted(what: &str, error: &watcher::Error) {
    tracing::warn!(what, %error, "watch interrupted, the last state is kept");
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
        Outcome::Denied(problem) => tracing::error!(
            %policy, %problem,
            "policy is malformed: all traffic to what it selects is denied until it is corrected \
             or deleted"
        ),
        Outcome::Refused(problem) => tracing::error!(
            %policy, %problem,
            "policy is malformed, and not one that is enforced here: correct or delete it"
        ),
    }
}

fn log_peer(peer: &PeerFacts, outcome: &PeerOutcome) {
    let peer_authentication = &peer.key;
    match outcome {
        PeerOutcome::InForce => tracing::info!(%peer_authentication, "in force"),
        PeerOutcome::Kept(problem) => tracing::error!(
            %peer_authentication, %problem,
            "malformed: the last good version stays in force until it is corrected"
        ),
        PeerOutcome::Strict(problem) => tracing::error!(
            %peer_authentication, %problem,
            "malformed: it counts as STRICT until it is corrected or deleted"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use mesh::PolicyKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::names;

    /// What is logged while `act` runs.
    fn logged(act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn policy(spec: Value) -> Input {
        let key = PolicyKey::parse("shop/p").unwrap();
        Input::Policies(Ok(Change::Seen(PolicyFacts { key, dry_run: None, spec })))
    }

    fn peer(spec: Value) -> Input {
        let key = PolicyKey::parse("shop/q").unwrap();
        Input::Peers(Ok(Change::Seen(PeerFacts { key, created: String::new(), spec })))
    }

    /// There is no status on the objects yet: this is where their authors find it.
    #[test]
    fn what_is_wrong_is_told_with_the_name_and_the_consequence() {
        let mut watched = Watched { table: Table::new(names()) };
        let bad = json!({ "rules": [{ "from": [{ "source": { "ipBlocks": ["10.0.0.0/33"] } }] }] });
        let http = json!({ "rules": [{ "to": [{ "operation": { "methods": ["GET"] } }] }] });
        let waypoint = json!({ "targetRefs": [{ "kind": "Gateway", "name": "w" }] });
        let mode = |mode: &str| json!({ "mtls": { "mode": mode } });
        for (input, words) in [
            (policy(bad.clone()), ["ERROR", "shop/p", "10.0.0.0/33", "traffic", "denied"]),
            (policy(json!({})), ["INFO", "shop/p", "policy", "sent", ""]),
            (policy(bad), ["ERROR", "shop/p", "10.0.0.0/33", "last good version", "in force"]),
            (policy(http), ["WARN", "shop/p", "HTTP", "ALLOW", "dropped=[0]"]),
            (policy(waypoint), ["WARN", "shop/p", "not sent", "", ""]),
            (peer(mode("STRICKT")), ["ERROR", "shop/q", "STRICKT", "counts as STRICT", ""]),
            (peer(mode("PERMISSIVE")), ["INFO", "shop/q", "in force", "", ""]),
            (peer(mode("STRICKT")), ["ERROR", "shop/q", "STRICKT", "last good version", ""]),
        ] {
            let line = logged(|| watched.on(input));
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
        }
    }
}
