//! Writes Events, as [`series`](super::series) decides.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::series::{Book, Kind, Moment, Next, Topic, Write};
use super::{EventReason, KubeApi, KubeError, patiently};
use crate::facts::{PodFacts, PodName, PodUid};

/// How Events name their author.
const COMPONENT: &str = "sluice-node-agent";
/// Where Events of objects are written that are in no namespace.
const OF_NODES: &str = "default";
/// While the API is away.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Events {
    book: Mutex<Book>,
    told: Notify,
    start: Instant,
}

impl Default for Events {
    fn default() -> Self {
        Self { book: Mutex::default(), told: Notify::new(), start: Instant::now() }
    }
}

impl Events {
    fn now(&self) -> Moment {
        Moment { since: self.start.elapsed(), wall: SystemTime::now() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Changes of the book are single steps: a panic leaves none half done.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KubeApi {
    /// Tells people about a pod, when there is time: [`KubeApi::write_events`] writes it. What
    /// is told again within minutes is counted in the Event that is there.
    pub fn tell(&self, pod: &PodFacts, reason: EventReason, message: String) {
        let (uid, pod) = (pod.uid.clone(), pod.name.clone());
        let topic = Topic { uid, pod, reason, message };
        self.events.book().note(topic, self.events.now());
        self.events.told.notify_one();
    }

    /// Tells people about our node, as [`KubeApi::tell`] does about a pod. By convention the
    /// UID that is told of a node is its name.
    pub fn tell_of_node(&self, reason: EventReason, message: String) {
        let (uid, name) = (PodUid(self.node.clone()), self.node.clone());
        let pod = PodName { namespace: OF_NODES.into(), name };
        let topic = Topic { uid, pod, reason, message };
        self.events.book().note(topic, self.events.now());
        self.events.told.notify_one();
    }

    /// Writes Events until `stop`. People can do without: what cannot be written is tried
    /// again for some minutes and then given up.
    pub async fn write_events(&self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let next = self.events.book().next(self.events.now().since);
            let dropped = self.events.book().take_dropped();
            self.metrics.events_dropped.inc_by(dropped);
            match next {
                Next::Write(write) => {
                    let written = tokio::select! {
                        () = stop.cancelled() => return,
                        written = self.write_event(&write) => written,
                    };
                    if written {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Next::Wait(wait) => tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.events.told.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                },
                Next::Idle => tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.events.told.notified() => {}
                },
            }
        }
    }

    /// `false`: the API is away, and asking for anything else would only fail as well.
    pub(super) async fn write_event(&self, write: &Write) -> bool {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &write.topic.pod.namespace);
        let request = async {
            match write.kind {
                Kind::Create => {
                    let event = self.event_object(write);
                    events.create(&PostParams::default(), &event).await
                }
                Kind::Count => {
                    let last = time(write.last);
                    let patch = json!({ "count": write.count, "lastTimestamp": last });
                    let parameters = PatchParams::default();
                    events.patch(&write.name, &parameters, &Patch::Merge(patch)).await
                }
            }
        };
        let Err(error) = patiently("write the Event", request).await else {
            self.metrics.events_written.inc();
            self.events.book().written(write);
            return true;
        };
        tracing::debug!(pod = %write.topic.pod, %error, "Event is not written");
        match (error.code(), write.kind) {
            (Some(404), Kind::Count) => self.events.book().vanished(write),
            // An answer that was lost: it had been written.
            (Some(409), Kind::Create) => self.events.book().written(write),
            (Some(400..=499), _) => self.events.book().refused(write),
            _ => {
                self.events.book().postponed(write);
                return false;
            }
        }
        true
    }

    fn event_object(&self, write: &Write) -> Event {
        let Topic { uid, pod, reason, message } = &write.topic;
        let (kind, (reason, type_)) = (reason.kind(), reason.text());
        Event {
            metadata: ObjectMeta {
                name: Some(write.name.clone()),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some(kind.into()),
                name: Some(pod.name.clone()),
                namespace: (kind == "Pod").then(|| pod.namespace.clone()),
                uid: Some(uid.0.clone()),
                ..ObjectReference::default()
            },
            reason: Some(reason.into()),
            message: Some(shortened(message)),
            type_: Some(type_.into()),
            first_timestamp: time(write.first),
            last_timestamp: time(write.last),
            count: Some(i32::try_from(write.count).unwrap_or(i32::MAX)),
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

/// The API refuses messages of more than 1024 bytes.
fn shortened(message: &str) -> String {
    const LONGEST: usize = 1024;
    const MARK: &str = " ...";
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let end = (0..=LONGEST - MARK.len()).rev().find(|at| message.is_char_boundary(*at));
    format!("{}{MARK}", &message[..end.unwrap_or_default()])
}

fn time(wall: SystemTime) -> Option<Time> {
    Timestamp::try_from(wall).ok().map(Time)
}

impl KubeError {
    /// The API server's answer, if it gave one.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_the_node_is_told_as_of_an_object_without_a_namespace() {
        let client = crate::testing::FakeApi::new().client(crate::kube::Metrics::default());
        client.tell_of_node(EventReason::ConflistContested, "somebody removes it".into());
        let Next::Write(write) = client.events.book().next(Duration::ZERO) else {
            panic!("it is due at once");
        };
        let event = client.event_object(&write);
        let about = &event.involved_object;
        assert_eq!(about.kind.as_deref(), Some("Node"));
        assert_eq!((about.name.as_deref(), about.uid.as_deref()), (Some("n1"), Some("n1")));
        assert_eq!(about.namespace, None);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.reason.as_deref(), Some("ConflistContested"));
    }

    #[test]
    fn messages_fit() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(1000));
        assert!(long.len() <= 1024 && long.ends_with("ä ..."), "{long}");
        assert_eq!(shortened(&"x".repeat(1024)).len(), 1024);
    }
}
