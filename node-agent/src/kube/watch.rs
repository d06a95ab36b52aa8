//! The watches: pods of this node, all namespaces. Objects become facts at once; nothing
//! else is kept.

use std::fmt::Debug;
use std::pin::pin;

use futures_util::TryStreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::objects::{SlimNamespace, SlimPod};
use super::{KubeApi, with_causes};
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
        watch(Api::all(self.client.clone()), config, kind, facts, stop).await;
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
        watch(Api::all(self.client.clone()), config, kind, facts, stop).await;
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
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    // A list arrives object by object; it counts when it is complete.
    let mut list = Vec::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = events.try_next() => next,
        };
        let fact = match next {
            Ok(Some(Event::Init)) => {
                list.clear();
                continue;
            }
            Ok(Some(Event::InitApply(object))) => {
                list.extend((kind.facts)(object));
                continue;
            }
            Ok(Some(Event::InitDone)) => Some((kind.all)(std::mem::take(&mut list))),
            Ok(Some(Event::Apply(object))) => (kind.facts)(object).map(kind.one),
            Ok(Some(Event::Delete(object))) => (kind.facts)(object).map(kind.gone),
            Ok(None) => return,
            Err(error) => {
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
