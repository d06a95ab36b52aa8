//! As much of the Kubernetes API as the agent asks for, without a socket.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::kube::{KubeApi, Metrics};

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// Pods and namespaces by path, and who watches them.
#[derive(Clone)]
pub struct FakeApi {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    events: Arc<Mutex<Vec<(String, String)>>>,
    versions: Arc<Mutex<u64>>,
    watchers: broadcast::Sender<(String, Value)>,
    /// All changes, for watches that go on where they ended.
    history: Arc<Mutex<Vec<(String, Value)>>>,
    down: Arc<watch::Sender<bool>>,
    requests: Arc<Mutex<Vec<String>>>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    said: Arc<Mutex<Vec<String>>>,
    blocked: Arc<Mutex<usize>>,
}

impl FakeApi {
    /// With namespace `shop`, unlabelled.
    pub fn new() -> Self {
        let (watchers, _) = broadcast::channel(256);
        let api = Self {
            objects: Arc::default(),
            events: Arc::default(),
            versions: Arc::default(),
            watchers,
            history: Arc::default(),
            down: Arc::new(watch::Sender::new(false)),
            requests: Arc::default(),
            counts: Arc::default(),
            said: Arc::default(),
            blocked: Arc::default(),
        };
        api.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
        api
    }

    pub fn client(&self, metrics: Metrics) -> KubeApi {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        KubeApi::with_client(Client::new(service, "default"), "n1".into(), metrics)
    }

    /// From now on every request fails, and watches end; or none.
    pub fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// What was asked so far, as `GET /api/v1/pods?watch=true`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How often the Events were told that have this reason.
    pub fn told(&self, reason: &str) -> u64 {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|(name, _)| name.starts_with(reason)).map(|(_, count)| count).sum()
    }

    /// The next evictions are refused, so many.
    pub fn block_evictions(&self, count: usize) {
        *self.blocked.lock().unwrap() = count;
    }

    /// Our node, with taints of these keys.
    pub fn add_node(&self, taints: &[&str]) {
        let taints: Vec<_> =
            taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        let node = json!({"metadata": {"name": "n1"}, "spec": {"taints": taints}});
        self.put("/api/v1/nodes/n1", node);
    }

    /// Keys of its taints.
    pub fn taints(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        let taints = objects["/api/v1/nodes/n1"]["spec"]["taints"].as_array().unwrap();
        taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Adds pod `shop/<name>` with UID `uid-<name>`.
    pub fn add_pod(&self, name: &str, ip: Option<&str>) {
        self.add_pod_as(name, &format!("uid-{name}"), ip, None);
    }

    /// Like [`FakeApi::add_pod`], with any UID, and labelled from the beginning.
    pub fn add_pod_as(&self, name: &str, uid: &str, ip: Option<&str>, mode: Option<&str>) {
        let labels: BTreeMap<_, _> =
            mode.into_iter().map(|mode| ("istio.io/dataplane-mode", mode)).collect();
        let metadata = json!({"name": name, "namespace": "shop", "uid": uid, "labels": labels});
        let status = json!({"phase": "Running", "podIP": ip});
        let spec = json!({"nodeName": "n1", "serviceAccountName": "clerk"});
        let pod = json!({"metadata": metadata, "spec": spec, "status": status});
        self.put(&pod_path(name), pod);
    }

    /// Like [`FakeApi::add_pod`] with a label, but no watcher is told.
    pub fn add_silently(&self, name: &str, mode: Option<&str>) {
        let metadata = json!({
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "labels": {"istio.io/dataplane-mode": mode},
        });
        let pod = json!({"metadata": metadata, "kind": "Pod", "spec": {}, "status": {}});
        self.objects.lock().unwrap().insert(pod_path(name), pod);
    }

    /// Merges `patch` into an object; watchers see it.
    pub fn patch(&self, path: &str, patch: &Value) -> Value {
        let mut object = self.objects.lock().unwrap()[path].clone();
        merge(&mut object, patch);
        self.put(path, object)
    }

    /// Labels pod `shop/<name>`; `None` removes the label.
    pub fn label(&self, name: &str, mode: Option<&str>) {
        let patch = json!({"metadata": {"labels": {"istio.io/dataplane-mode": mode}}});
        self.patch(&pod_path(name), &patch);
    }

    /// An annotation that the pod's owner has written.
    pub fn annotate(&self, name: &str, key: &str, value: &str) {
        self.patch(&pod_path(name), &json!({"metadata": {"annotations": {key: value}}}));
    }

    /// The pod's owner removes an annotation.
    pub fn unannotate(&self, name: &str, key: &str) {
        self.patch(&pod_path(name), &json!({"metadata": {"annotations": {key: null}}}));
    }

    pub fn delete_pod(&self, name: &str) {
        let mut gone = self.objects.lock().unwrap().remove(&pod_path(name)).unwrap();
        gone["metadata"]["resourceVersion"] = json!(self.next_version());
        self.changed("DELETED", &gone);
    }

    pub fn annotation(&self, name: &str, key: &str) -> Option<String> {
        let objects = self.objects.lock().unwrap();
        Some(objects[&pod_path(name)]["metadata"]["annotations"][key].as_str()?.to_owned())
    }

    /// Reasons of the Events so far.
    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|(reason, _)| reason.clone()).collect()
    }

    /// Messages of the Events with this reason so far.
    pub fn messages(&self, reason: &str) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event.0 == reason).map(|event| event.1.clone()).collect()
    }

    /// What the agent wrote into `sluice.dev/observed` so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    fn put(&self, path: &str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!(self.next_version());
        object["kind"] = json!(match path {
            path if path.contains("/pods/") => "Pod",
            path if path.contains("/nodes/") => "Node",
            _ => "Namespace",
        });
        self.objects.lock().unwrap().insert(path.into(), object.clone());
        self.changed("MODIFIED", &object);
        object
    }

    fn next_version(&self) -> String {
        let mut versions = self.versions.lock().unwrap();
        *versions += 1;
        versions.to_string()
    }

    fn changed(&self, how: &str, object: &Value) {
        let mut history = self.history.lock().unwrap();
        history.push((how.into(), object.clone()));
        // Nobody may be watching.
        let _ = self.watchers.send((how.into(), object.clone()));
    }

    async fn answer(&self, request: Request<Body>) -> Response<AnyBody> {
        let (head, body) = request.into_parts();
        self.requests.lock().unwrap().push(format!("{} {}", head.method, head.uri));
        if *self.down.borrow() {
            return full(StatusCode::SERVICE_UNAVAILABLE, &json!({"message": "down"}));
        }
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        match (head.method, self.collection(&path)) {
            (Method::GET, Some(kind)) if query.contains("watch=") => self.watch(kind, &query),
            (Method::GET, Some(kind)) => self.list(kind),
            (Method::GET, None) => match self.objects.lock().unwrap().get(&path) {
                Some(object) => full(StatusCode::OK, object),
                None => not_found(),
            },
            (Method::PATCH, None) if path.contains("/events/") => self.count_event(&path, &body),
            (Method::PATCH, None) => self.patch_request(&path, &body),
            (Method::POST, _) if path.ends_with("/eviction") => self.evict(&path, &body),
            (Method::POST, _) => self.create_event(&body),
            _ => full(StatusCode::METHOD_NOT_ALLOWED, &json!({})),
        }
    }

    fn collection(&self, path: &str) -> Option<&'static str> {
        match path {
            "/api/v1/pods" => Some("Pod"),
            "/api/v1/namespaces" => Some("Namespace"),
            _ => None,
        }
    }

    fn list(&self, kind: &str) -> Response<AnyBody> {
        let objects = self.objects.lock().unwrap();
        let items: Vec<_> = objects.values().filter(|object| object["kind"] == kind).collect();
        let version = self.versions.lock().unwrap().to_string();
        let list = json!({"metadata": {"resourceVersion": version}, "items": items});
        full(StatusCode::OK, &list)
    }

    /// From the version on that the query names: nothing is missed between list and watch.
    fn watch(&self, kind: &'static str, query: &str) -> Response<AnyBody> {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|since| since.parse().ok()).unwrap_or_default();
        let history = self.history.lock().unwrap();
        let missed = history.iter().filter(|(_, object)| version(object) > since);
        let missed: VecDeque<_> = missed.cloned().collect();
        let state = (missed, self.watchers.subscribe(), self.down.subscribe());
        drop(history);
        let lines = futures_util::stream::unfold(state, move |mut state| async move {
            loop {
                let (missed, changes, down) = &mut state;
                let (change, object) = match missed.pop_front() {
                    Some(change) => change,
                    None => tokio::select! {
                        // What was sent before arrives.
                        biased;
                        change = changes.recv() => change.ok()?,
                        _ = down.wait_for(|down| *down) => return None,
                    },
                };
                if object["kind"] == kind {
                    let line = format!("{}\n", json!({"type": change, "object": object}));
                    return Some((Ok(Frame::data(Bytes::from(line))), state));
                }
            }
        });
        Response::new(StreamBody::new(lines.boxed()).boxed_unsync())
    }

    fn create_event(&self, body: &[u8]) -> Response<AnyBody> {
        let event: Value = serde_json::from_slice(body).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        self.events.lock().unwrap().push((text("reason"), text("message")));
        let name = event["metadata"]["name"].as_str().expect("a name of our own");
        let key = format!("{} {name}", text("reason"));
        self.counts.lock().unwrap().insert(key, event["count"].as_u64().unwrap());
        full(StatusCode::CREATED, &event)
    }

    /// As the real one: a pod's disruption budget may be in the way, and its UID must be right.
    fn evict(&self, path: &str, body: &[u8]) -> Response<AnyBody> {
        let eviction: Value = serde_json::from_slice(body).unwrap();
        let path = path.strip_suffix("/eviction").unwrap();
        let uid = self.objects.lock().unwrap()[path]["metadata"]["uid"].clone();
        if eviction["deleteOptions"]["preconditions"]["uid"] != uid {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        let mut blocked = self.blocked.lock().unwrap();
        if *blocked > 0 {
            *blocked -= 1;
            return status(StatusCode::TOO_MANY_REQUESTS, "the disruption budget web needs 1 pod");
        }
        let now = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}});
        self.patch(path, &now);
        full(StatusCode::CREATED, &json!({"kind": "Status", "status": "Success"}))
    }

    fn count_event(&self, path: &str, body: &[u8]) -> Response<AnyBody> {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let mut counts = self.counts.lock().unwrap();
        let name = path.rsplit('/').next().unwrap();
        match counts.iter_mut().find(|(key, _)| key.ends_with(&format!(" {name}"))) {
            Some((_, count)) => *count = patch["count"].as_u64().unwrap(),
            None => return not_found(),
        }
        full(StatusCode::OK, &json!({"metadata": {"name": name}, "involvedObject": {}}))
    }

    /// As the real one, refuses a patch that names another UID or an older version.
    fn patch_request(&self, path: &str, body: &[u8]) -> Response<AnyBody> {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let Some(object) = self.objects.lock().unwrap().get(path).cloned() else {
            return not_found();
        };
        let precondition = |key: &str| {
            let wanted = &patch["metadata"][key];
            wanted.is_null() || *wanted == object["metadata"][key]
        };
        let names_the_pod = path.contains("/nodes/") || patch["metadata"]["uid"].is_string();
        if !(names_the_pod && precondition("uid") && precondition("resourceVersion")) {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        let observed = &patch["metadata"]["annotations"]["sluice.dev/observed"];
        self.said.lock().unwrap().extend(observed.as_str().map(str::to_owned));
        full(StatusCode::OK, &self.patch(path, &patch))
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{name}")
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}

fn not_found() -> Response<AnyBody> {
    status(StatusCode::NOT_FOUND, "NotFound")
}

fn status(code: StatusCode, reason: &str) -> Response<AnyBody> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    full(code, &body)
}

fn full(code: StatusCode, body: &Value) -> Response<AnyBody> {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}
