//! As much of the Kubernetes API as the control plane asks for: lists and watches of its
//! kinds of objects, token reviews, and single objects in [`kept`].

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::kept::Kept;

pub const PODS: &str = "/api/v1/pods";
pub const POLICIES: &str = "/apis/security.istio.io/v1/authorizationpolicies";
pub const NODES: &str = "/api/v1/nodes";
pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const PEERS: &str = "/apis/security.istio.io/v1/peerauthentications";
const KNOWN: [&str; 6] = [PODS, NODES, SERVICES, SLICES, POLICIES, PEERS];
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// The API; it ends when it is dropped.
pub struct KubeApi {
    pub address: SocketAddr,
    state: Arc<State>,
    server: AbortHandle,
}

struct State {
    stored: Mutex<Stored>,
    /// The last version; those who watch wake up when it changes.
    version: watch::Sender<u64>,
    /// Status that lists and watches of a path are answered with, instead of working.
    broken: watch::Sender<HashMap<&'static str, u16>>,
}

#[derive(Default)]
struct Stored {
    objects: HashMap<&'static str, BTreeMap<String, Value>>,
    /// Version, path, event.
    history: Vec<(u64, &'static str, Value)>,
    /// Token to the user it is of.
    tokens: HashMap<String, Value>,
    kept: Kept,
}

impl KubeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            stored: Mutex::default(),
            version: watch::Sender::new(1),
            broken: watch::Sender::default(),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn put(&self, path: &'static str, object: &Value) {
        self.change(path, object, "ADDED");
    }

    pub fn delete(&self, path: &'static str, object: &Value) {
        self.change(path, object, "DELETED");
    }

    /// From now on this token is good, and of this pod.
    pub fn admit(&self, token: &str, account: &str, pod: &Value) {
        let user = json!({
            "username": format!("system:serviceaccount:{account}"),
            "extra": {
                "authentication.kubernetes.io/pod-name": [pod["metadata"]["name"]],
                "authentication.kubernetes.io/pod-uid": [pod["metadata"]["uid"]],
            },
        });
        self.state.stored.lock().unwrap().tokens.insert(token.to_owned(), user);
    }

    /// Secrets and config maps.
    pub fn kept<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.state.stored.lock().unwrap().kept)
    }

    /// Lists of this path fail, and watches end.
    pub fn break_down(&self, path: &'static str, status: u16) {
        self.state.broken.send_modify(|broken| {
            broken.insert(path, status);
        });
    }

    pub fn repair(&self) {
        self.state.broken.send_modify(HashMap::clear);
    }

    fn change(&self, path: &'static str, object: &Value, kind: &str) {
        self.state.version.send_modify(|version| {
            *version += 1;
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            let name =
                format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
            let mut stored = self.state.stored.lock().unwrap();
            let objects = stored.objects.entry(path).or_default();
            if kind == "DELETED" {
                objects.remove(&name);
            } else {
                objects.insert(name, object.clone());
            }
            stored.history.push((*version, path, json!({ "type": kind, "object": object })));
        });
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        connections.spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // The client may go away at any time.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    if path == REVIEWS && request.method() == Method::POST {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        return Ok(json_response(StatusCode::CREATED, &review(&state, &body)));
    }
    if Kept::has(&path) {
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        return Ok(match state.stored.lock().unwrap().kept.answer(&method, &path, &body) {
            Ok(object) => json_response(StatusCode::OK, &object),
            Err(status) => failure(status),
        });
    }
    let Some(path) = KNOWN.into_iter().find(|known| *known == path) else {
        return Ok(failure(404));
    };
    let broken = state.broken.borrow().get(path).copied();
    Ok(match broken {
        Some(status) => failure(status),
        None if query.contains("watch=true") => watch_from(state, path, &query),
        None => json_response(StatusCode::OK, &list(&state, path)),
    })
}

fn review(state: &State, body: &[u8]) -> Value {
    let mut review: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(review["spec"]["audiences"], json!(["istio-ca"]));
    let token = review["spec"]["token"].as_str().unwrap();
    review["status"] = match state.stored.lock().unwrap().tokens.get(token) {
        Some(user) => json!({ "authenticated": true, "audiences": ["istio-ca"], "user": user }),
        None => json!({ "authenticated": false, "error": "token has expired" }),
    };
    review
}

fn list(state: &State, path: &str) -> Value {
    let version = *state.version.borrow();
    let stored = state.stored.lock().unwrap();
    let items: Vec<_> = stored.objects.get(path).into_iter().flat_map(BTreeMap::values).collect();
    json!({
        "apiVersion": "v1", "kind": "List",
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    })
}

fn watch_from(state: Arc<State>, path: &'static str, query: &str) -> Response<Body> {
    let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    let mut seen: u64 = from.unwrap().parse().unwrap();
    let (lines, body) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        let mut version = state.version.subscribe();
        let mut broken = state.broken.subscribe();
        loop {
            // What changes after the breakdown is not told any more.
            if broken.borrow().contains_key(path) {
                return;
            }
            let now = *version.borrow_and_update();
            for event in state.after(seen, path) {
                if lines.send(format!("{event}\n").into()).await.is_err() {
                    return;
                }
            }
            seen = now;
            tokio::select! {
                _ = version.changed() => {}
                _ = broken.wait_for(|broken| broken.contains_key(path)) => return,
                () = lines.closed() => return,
            }
        }
    });
    let frames = ReceiverStream::new(body).map(|line| Ok(Frame::data(line)));
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

impl State {
    fn after(&self, seen: u64, path: &str) -> Vec<Value> {
        let stored = self.stored.lock().unwrap();
        let new = stored.history.iter().filter(|(version, at, _)| *version > seen && *at == path);
        new.map(|(_, _, event)| event.clone()).collect()
    }
}

fn failure(status: u16) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap();
    // As Kubernetes writes it: NotFound.
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": status.as_u16(), "reason": reason, "message": "as the test wants",
    });
    json_response(status, &body)
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let frame = Frame::data(Bytes::from(value.to_string()));
    let body = StreamBody::new(tokio_stream::once(Ok(frame)));
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(BodyExt::boxed(body))
        .unwrap()
}
