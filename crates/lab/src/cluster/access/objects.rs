//! Objects: JSON in, JSON out, by path.

use std::time::Duration;

use http::{Method, Request, header};
use serde_json::{Value, json};

use super::{AccessError, Cluster, PodSpec, paths};

/// Deadline of one request: API servers answer in milliseconds, those of a loaded machine
/// that starts pods in seconds.
const DEADLINE: Duration = Duration::from_secs(30);

impl Cluster {
    /// The object at `path`.
    ///
    /// # Errors
    /// [`AccessError`]; a missing object is a refusal with code 404.
    pub async fn get(&self, path: &str) -> Result<Value, AccessError> {
        self.ask(Method::GET, path, None).await
    }

    /// The object at `path`, if there is one.
    ///
    /// # Errors
    /// [`AccessError`], but not for a missing object.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, AccessError> {
        absent_is_none(self.get(path).await)
    }

    /// The items of the collection at `path`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, AccessError> {
        match self.get(path).await?.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(AccessError::Malformed {
                what: format!("GET {path}"),
                problem: "the answer has no items".to_owned(),
            }),
        }
    }

    /// Creates any object in the collection at `path` and gives it as stored.
    ///
    /// # Errors
    /// [`AccessError`]; an object of that name is a refusal with code 409, an unknown kind
    /// one with 404.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, AccessError> {
        let mut object = object.clone();
        if let Some((key, value)) = &self.label {
            object["metadata"]["labels"][key] = json!(value);
        }
        self.post(path, &object).await
    }

    /// A question as an object, which is not kept.
    pub(super) async fn post(&self, path: &str, object: &Value) -> Result<Value, AccessError> {
        self.ask(Method::POST, path, Some(("application/json", object))).await
    }

    /// Changes an object by an RFC 7386 merge patch and gives it as stored.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, AccessError> {
        self.ask(Method::PATCH, path, Some(("application/merge-patch+json", patch))).await
    }

    /// Deletes an object; one that is gone already is fine. Kubernetes removes it later.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn delete(&self, path: &str) -> Result<(), AccessError> {
        absent_is_none(self.ask(Method::DELETE, path, None).await).map(drop)
    }

    /// The same, but the object stays until everything that it owns is gone.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn delete_with_dependents(&self, path: &str) -> Result<(), AccessError> {
        self.delete(&paths::with_query(path, &[("propagationPolicy", "Foreground")])).await
    }

    /// Creates a namespace with labels.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn create_namespace(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<(), AccessError> {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.create(paths::NAMESPACES, &object).await.map(drop)
    }

    /// Creates a service account; one of that name is fine.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn ensure_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(), AccessError> {
        let path = paths::core(namespace, "serviceaccounts");
        match self.create(&path, &json!({"metadata": {"name": name}})).await {
            Err(error) if error.code() == Some(409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Creates a pod, and its service account where there is none yet.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn create_pod(&self, spec: &PodSpec) -> Result<Value, AccessError> {
        if let Some(account) = &spec.service_account {
            self.ensure_service_account(&spec.namespace, account).await?;
        }
        self.create(&paths::core(&spec.namespace, "pods"), &spec.object()).await
    }

    /// Sets a label of the object at `path`, or removes it with `None`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn label(
        &self,
        path: &str,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), AccessError> {
        self.merge_patch(path, &json!({"metadata": {"labels": {key: value}}})).await.map(drop)
    }

    /// The last lines that a pod's container has printed.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        lines: u32,
    ) -> Result<String, AccessError> {
        let lines = lines.to_string();
        let mut query = vec![("tailLines", lines.as_str())];
        query.extend(container.map(|container| ("container", container)));
        let path = paths::with_query(&format!("{}/log", paths::pod(namespace, pod)), &query);
        self.text(Method::GET, &path, None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, AccessError> {
        let what = format!("{method} {path}");
        let text = self.text(method, path, body).await?;
        serde_json::from_str(&text)
            .map_err(|error| AccessError::Malformed { what, problem: error.to_string() })
    }

    async fn text(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<String, AccessError> {
        let what = format!("{method} {path}");
        let request = build(&method, path, body).map_err(|error| AccessError::Malformed {
            what: what.clone(),
            problem: error.to_string(),
        })?;
        match tokio::time::timeout(DEADLINE, self.client.request_text(request)).await {
            Ok(answer) => answer.map_err(|error| AccessError::of(what, error)),
            Err(_) => Err(AccessError::Deadline { what, deadline: DEADLINE }),
        }
    }
}

fn build(
    method: &Method,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Vec<u8>>, http::Error> {
    let request = Request::builder().method(method).uri(path);
    match body {
        None => request.body(Vec::new()),
        Some((kind, value)) => {
            request.header(header::CONTENT_TYPE, kind).body(value.to_string().into_bytes())
        }
    }
}

fn absent_is_none(answer: Result<Value, AccessError>) -> Result<Option<Value>, AccessError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}
