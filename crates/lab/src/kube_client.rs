//! The lab's own client of the Kubernetes API: JSON in, JSON out.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::http_client::{self as exchange, HttpError};
use crate::patience::{TimedOut, eventually};

/// Deadline of one request: the server is in the same process.
const DEADLINE: Duration = Duration::from_secs(10);

/// The path of all namespaces.
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";

/// A request that brought nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The server refused it.
    #[error("{method} {path}: {code} {reason}: {message}")]
    Status {
        /// HTTP verb.
        method: Method,
        /// What was asked for.
        path: String,
        /// HTTP status.
        code: u16,
        /// `reason` of the server's Status object, for example `NotFound`.
        reason: String,
        /// Its text.
        message: String,
    },
    /// There was no answer.
    #[error("{method} {path}: {source}")]
    Http {
        /// HTTP verb.
        method: Method,
        /// What was asked for.
        path: String,
        /// What went wrong.
        source: HttpError,
    },
    /// The answer or the path is not what an API server deals in.
    #[error("{method} {path}: {problem}")]
    Malformed {
        /// HTTP verb.
        method: Method,
        /// What was asked for.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// An object did not become what was waited for.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl KubeError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A client of one API server, without authentication.
#[derive(Clone, Debug)]
pub struct KubeClient {
    server: SocketAddr,
}

impl KubeClient {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server }
    }

    /// The object at `path`, for example `/api/v1/namespaces/default/pods/client`.
    ///
    /// # Errors
    /// [`KubeError`]; a missing object is a status of 404.
    pub async fn get(&self, path: &str) -> Result<Value, KubeError> {
        self.ask(Method::GET, path, None).await
    }

    /// The object at `path`, if there is one.
    ///
    /// # Errors
    /// [`KubeError`], but not for a missing object.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, KubeError> {
        absent_is_none(self.get(path).await)
    }

    /// The items of the collection at `path`.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, KubeError> {
        match self.get(path).await?.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(malformed(&Method::GET, path, "the answer has no items")),
        }
    }

    /// Creates an object in the collection at `path` and returns it as stored.
    ///
    /// # Errors
    /// [`KubeError`]; an existing object is a status of 409.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, KubeError> {
        self.ask(Method::POST, path, Some(("application/json", object))).await
    }

    /// Changes an object by an RFC 7386 merge patch and returns it as stored.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, KubeError> {
        self.ask(Method::PATCH, path, Some(("application/merge-patch+json", patch))).await
    }

    /// Deletes an object; one that is gone already is fine.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn delete(&self, path: &str) -> Result<(), KubeError> {
        absent_is_none(self.ask(Method::DELETE, path, None).await).map(drop)
    }

    /// A pod.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Value, KubeError> {
        self.get(&pod_path(namespace, name)).await
    }

    /// Sets a pod's label, or removes it with `None`.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn label_pod(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), KubeError> {
        let patch = json!({"metadata": {"labels": {key: value}}});
        self.merge_patch(&pod_path(namespace, name), &patch).await.map(drop)
    }

    /// Sets a namespace's label, or removes it with `None`.
    ///
    /// # Errors
    /// [`KubeError`].
    pub async fn label_namespace(
        &self,
        namespace: &str,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), KubeError> {
        let patch = json!({"metadata": {"labels": {key: value}}});
        self.merge_patch(&format!("{NAMESPACES}/{namespace}"), &patch).await.map(drop)
    }

    /// Waits until `check` holds for a pod, and returns the pod.
    ///
    /// # Errors
    /// [`KubeError::TimedOut`] naming `what`.
    pub async fn wait_pod(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        patience: Duration,
        check: impl Fn(&Value) -> bool,
    ) -> Result<Value, KubeError> {
        let what = format!("pod {namespace}/{name}: {what}");
        let look = async || self.pod(namespace, name).await.ok().filter(|pod| check(pod));
        let found = eventually(&what, patience, look);
        Ok(found.await?)
    }

    /// Creates an object unless one of its name is there.
    pub(crate) async fn ensure(&self, path: &str, object: &Value) -> Result<(), KubeError> {
        match self.create(path, object).await {
            Err(error) if error.code() == Some(409) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, KubeError> {
        let request = build(&method, path, body)
            .map_err(|error| malformed(&method, path, &error.to_string()))?;
        let to = self.server;
        let exchanged = async {
            let connected = TcpStream::connect(to).await;
            let stream = connected.map_err(|source| HttpError::Connect { to, source })?;
            exchange::send(stream, to, request).await
        };
        let answer = tokio::time::timeout(DEADLINE, exchanged).await;
        let answer = answer.unwrap_or(Err(HttpError::Deadline { to, deadline: DEADLINE }));
        let (code, body) = answer.map_err(|source| KubeError::Http {
            method: method.clone(),
            path: path.to_owned(),
            source,
        })?;
        judge(method, path, code, &body)
    }
}

pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("{NAMESPACES}/{namespace}/pods/{name}")
}

fn build(
    method: &Method,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::ACCEPT, "application/json");
    match body {
        None => request.body(Full::default()),
        Some((kind, value)) => {
            request.header(header::CONTENT_TYPE, kind).body(Full::from(value.to_string()))
        }
    }
}

fn judge(method: Method, path: &str, code: u16, body: &[u8]) -> Result<Value, KubeError> {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    if (200..300).contains(&code) {
        return parsed.ok_or_else(|| malformed(&method, path, "the answer is not JSON"));
    }
    let text = |key| parsed.as_ref().and_then(|s| s.get(key)?.as_str()).map(str::to_owned);
    let message = text("message").unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let reason = text("reason").unwrap_or_default();
    Err(KubeError::Status { method, path: path.to_owned(), code, reason, message })
}

fn malformed(method: &Method, path: &str, problem: &str) -> KubeError {
    let (method, path, problem) = (method.clone(), path.to_owned(), problem.to_owned());
    KubeError::Malformed { method, path, problem }
}

fn absent_is_none(answer: Result<Value, KubeError>) -> Result<Option<Value>, KubeError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}
