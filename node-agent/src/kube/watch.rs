//! The watches: pods of this node, all namespaces. Objects become facts at once; nothing
//! else is kept.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::objects::{SlimNamespace, SlimPod};
use super::sight::Sight;
use super::{KubeApi, Metrics, with_causes};
use crate::facts::{NamespaceFacts, PodFacts};
use crate::reconcile::Fact;

impl KubeApi {
    /// Watches the pods of this node until `stop`. Errors are logged and retried with
    /// growing pauses; what is known stays known meanwhile.
    pub async fn watch_pods(&self, facts: mpsc::Sender<Fact>, stop: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        let kind = Kind {
            name: "pods",
            facts: SlimPod::facts,
            all: Fact::Pods,
            one: Fact::Pod,
            gone: |pod: PodFacts| Fact::PodGone(pod.uid),
        };
        let pods =
            watch(Api::all(self.client.clone()), config, kind, facts, (&self.sight, &self.metrics));
        stop.run_until_cancelled(pods).await;
    }

    /// Watches all namespaces until `stop`, likewise.
    pub async fn watch_namespaces(&self, facts: mpsc::Sender<Fact>, stop: CancellationToken) {
        let kind = Kind {
            name: "namespaces",
            facts: SlimNamespace::facts,
            all: Fact::Namespaces,
            one: Fact::Namespace,
            gone: |namespace: NamespaceFacts| Fact::NamespaceGone(namespace.name),
        };
        let config = watcher::Config::default();
        let namespaces =
            watch(Api::all(self.client.clone()), config, kind, facts, (&self.sight, &self.metrics));
        stop.run_until_cancelled(namespaces).await;
    }
}

/// Between two attempts to watch at most: an API server that is back is heard soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A watch that goes on where it ended shows nothing before something changes. When no attempt
/// has failed for so long, longer than pause and connecting take together, it stands.
const QUIET: Duration = Duration::from_secs(45);

/// The usual growing pauses, up to ours.
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// How objects of one kind become facts.
struct Kind<K, F> {
    name: &'static str,
    facts: fn(K) -> Option<F>,
    all: fn(Vec<F>) -> Fact,
    one: fn(F) -> Fact,
    gone: fn(F) -> Fact,
}

async fn watch<K, F>(
    api: Api<K>,
    config: watcher::Config,
    kind: Kind<K, F>,
    facts: mpsc::Sender<Fact>,
    (sight, metrics): (&Sight, &Metrics),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).backoff(Pauses::default()));
    sight.fails(kind.name, metrics);
    // A list arrives object by object; it counts when it is complete.
    let mut list = Vec::new();
    let mut since_failure = None;
    loop {
        let next = match since_failure {
            None => events.try_next().await,
            Some(at) => match timeout_at(at + QUIET, events.try_next()).await {
                Ok(next) => next,
                Err(_) => {
                    since_failure = None;
                    sight.clears(kind.name, metrics);
                    continue;
                }
            },
        };
        if next.is_ok() && since_failure.take().is_some() {
            sight.clears(kind.name, metrics);
        }
        let fact = match next {
            Ok(Some(Event::Init)) => {
                list.clear();
                continue;
            }
            Ok(Some(Event::InitApply(object))) => {
                list.extend((kind.facts)(object));
                continue;
            }
            Ok(Some(Event::InitDone)) => {
                sight.clears(kind.name, metrics);
                Some((kind.all)(std::mem::take(&mut list)))
            }
            Ok(Some(Event::Apply(object))) => (kind.facts)(object).map(kind.one),
            Ok(Some(Event::Delete(object))) => (kind.facts)(object).map(kind.gone),
            Ok(None) => return,
            Err(error) => {
                sight.fails(kind.name, metrics);
                since_failure = Some(Instant::now());
                let error = with_causes(&error);
                tracing::warn!(kind = kind.name, error, "watch of the API failed, trying again");
                continue;
            }
        };
        if let Some(fact) = fact
            && facts.send(fact).await.is_err()
        {
            return;
        }
    }
}
