//! A server for one test and the simplest client of it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lab::kube_api::{KubeApi, Limits};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// How long any one answer or event may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const MERGE: &str = "application/merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

pub struct Api {
    pub server: KubeApi,
    pub address: SocketAddr,
}

impl Api {
    pub async fn start() -> Api {
        Api::start_with(Limits::default()).await
    }

    pub async fn start_with(limits: Limits) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = KubeApi::start_with(vec![listener], limits).await.unwrap();
        let address = server.addresses()[0];
        Api { server, address }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send(self.address, request).await
    }

    pub async fn call(&self, method: Method, path: &str, body: &[u8], kind: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/json")
            .header("content-type", kind)
            .body(Full::from(body.to_vec()))
            .unwrap();
        whole(self.send(request).await).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, b"", "application/json").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Value {
        let request = Request::get(path).header("accept", accept).body(Full::default()).unwrap();
        let (code, body) = whole(self.send(request).await).await;
        assert_eq!(code, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, body.to_string().as_bytes(), "application/json").await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PUT, path, body.to_string().as_bytes(), "application/json").await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, path, body.to_string().as_bytes(), kind).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, b"", "application/json").await
    }

    /// Creates an object that must be accepted.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let (code, created) = self.post(path, body).await;
        assert_eq!(code, 201, "{path}: {created}");
        created
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let sending = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = request;
        request.headers_mut().insert("host", "lab".parse().unwrap());
        sender.send_request(request).await.unwrap()
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("an answer in time")
}

pub async fn whole(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect());
    let bytes = body.await.expect("a body in time").unwrap().to_bytes();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&bytes)));
    (code, value)
}

/// The events of a watch.
pub struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event, or `None` when the watch ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame());
            match frame.await.expect("an event in time") {
                Some(frame) => self.buffer.extend(frame.unwrap().data_ref().unwrap()),
                None => return None,
            }
        }
    }

    /// Type and name of the next event.
    pub async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

pub fn labelled(name: &str, app: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!({ "app": app });
    pod
}

pub fn on_node(name: &str, node: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

pub fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap_or_else(|| panic!("no items in {list}"));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}
