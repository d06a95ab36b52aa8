//! As much of the Kubernetes API as the agent asks for, without a socket.

use std::collections::BTreeMap;
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
use tokio::sync::broadcast;

use crate::kube::KubeApi;

type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// Pods and namespaces by path, and who watches them.
#[derive(Clone)]
pub struct FakeApi {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    events: Arc<Mutex<Vec<(String, String)>>>,
    versions: Arc<Mutex<u64>>,
    watchers: broadcast::Sender<(String, Value)>,
    down: Arc<Mutex<bool>>,
    said: Arc<Mutex<Vec<String>>>,
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
            down: Arc::default(),
            said: Arc::default(),
        };
        api.put("/api/v1/namespaces/shop", json!({"metadata": {"name": "shop"}}));
        api
    }

    pub fn client(&self) -> KubeApi {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        KubeApi::with_client(Client::new(service, "default"), "n1".into())
    }

    /// From now on every request fails, or none.
    pub fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// Adds pod `shop/<name>` with UID `uid-<name>`.
    pub fn add_pod(&self, name: &str, ip: Option<&str>) {
        let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}")});
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
        let gone = self.objects.lock().unwrap().remove(&pod_path(name)).unwrap();
        // Nobody may be watching.
        let _ = self.watchers.send(("DELETED".into(), gone));
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
        let version = {
            let mut versions = self.versions.lock().unwrap();
            *versions += 1;
            versions.to_string()
        };
        object["metadata"]["resourceVersion"] = json!(version);
        object["kind"] = json!(if path.contains("/pods/") { "Pod" } else { "Namespace" });
        self.objects.lock().unwrap().insert(path.into(), object.clone());
        // Nobody may be watching.
        let _ = self.watchers.send(("MODIFIED".into(), object.clone()));
        object
    }

    async fn answer(&self, request: Request<Body>) -> Response<AnyBody> {
        if *self.down.lock().unwrap() {
            return full(StatusCode::SERVICE_UNAVAILABLE, &json!({"message": "down"}));
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        match (head.method, self.collection(&path)) {
            (Method::GET, Some(kind)) if query.contains("watch=") => self.watch(kind),
            (Method::GET, Some(kind)) => self.list(kind),
            (Method::GET, None) => match self.objects.lock().unwrap().get(&path) {
                Some(object) => full(StatusCode::OK, object),
                None => not_found(),
            },
            (Method::PATCH, None) => self.patch_request(&path, &body),
            (Method::POST, _) => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                self.events.lock().unwrap().push((text("reason"), text("message")));
                full(StatusCode::CREATED, &event)
            }
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

    fn watch(&self, kind: &'static str) -> Response<AnyBody> {
        let changes = self.watchers.subscribe();
        let lines = futures_util::stream::unfold(changes, move |mut changes| async move {
            loop {
                let (change, object) = changes.recv().await.ok()?;
                if object["kind"] == kind {
                    let line = format!("{}\n", json!({"type": change, "object": object}));
                    return Some((Ok(Frame::data(Bytes::from(line))), changes));
                }
            }
        });
        Response::new(StreamBody::new(lines.boxed()).boxed_unsync())
    }

    /// As the real one, refuses a patch that names another UID.
    fn patch_request(&self, path: &str, body: &[u8]) -> Response<AnyBody> {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let Some(object) = self.objects.lock().unwrap().get(path).cloned() else {
            return not_found();
        };
        if patch["metadata"]["uid"] != object["metadata"]["uid"] {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        let observed = &patch["metadata"]["annotations"]["sluice.dev/observed"];
        self.said.lock().unwrap().extend(observed.as_str().map(str::to_owned));
        full(StatusCode::OK, &self.patch(path, &patch))
    }
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
