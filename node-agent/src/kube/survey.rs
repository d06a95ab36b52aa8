//! Reads whole kinds of objects once, for a look at the cluster: also kinds that only some
//! clusters have, hence as JSON.

use std::fmt;

use http::Request;
use serde_json::Value;

use super::objects::{SlimNamespace, SlimPod};
use super::{KubeApi, KubeError, patiently};
use crate::facts::{NamespaceFacts, PodFacts};

/// Objects in one answer: what a small API server sends without effort.
const PAGE: usize = 500;
/// Answers for one kind. Who has more objects gets told that they were not looked at.
const MOST_PAGES: usize = 400;

/// Which objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// `v1`, or group and version.
    pub version: &'static str,
    /// The kind's name in paths and in roles.
    pub plural: &'static str,
    /// Only objects of this name, in whichever namespace: a role may allow no others.
    pub name: Option<&'static str>,
}

impl Listing {
    /// All objects of a kind.
    #[must_use]
    pub const fn all(version: &'static str, plural: &'static str) -> Self {
        Self { version, plural, name: None }
    }

    /// Those of this name.
    #[must_use]
    pub const fn named(plural: &'static str, name: &'static str) -> Self {
        Self { version: "v1", plural, name: Some(name) }
    }

    fn path(&self, next: &str) -> String {
        let root = if self.version.contains('/') { "apis" } else { "api" };
        let Self { version, plural, .. } = self;
        let mut path = format!("/{root}/{version}/{plural}?limit={PAGE}");
        if let Some(name) = self.name {
            path = format!("{path}&fieldSelector=metadata.name%3D{name}");
        }
        if !next.is_empty() {
            path = format!("{path}&continue={}", escaped(next));
        }
        path
    }
}

/// As in roles: the kind and its group.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        match self.version.split_once('/') {
            Some((group, _)) => write!(f, ".{group}"),
            None => Ok(()),
        }
    }
}

/// Why objects were not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A role is missing.
    #[error("the account may not list {0}: verb list is missing")]
    Forbidden(String),
    /// Far too many.
    #[error("there are more than {limit} {0}", limit = PAGE * MOST_PAGES)]
    TooMany(String),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] KubeError),
}

impl KubeApi {
    /// All objects of a kind; `None` where the cluster has no such kind.
    ///
    /// # Errors
    /// Any [`Unread`].
    pub async fn items(&self, listing: &Listing) -> Result<Option<Vec<Value>>, Unread> {
        let mut items = Vec::new();
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            let mut page = match self.get(&listing.path(&next)).await {
                Ok(page) => page,
                Err(KubeError::Api { source, .. }) if is(&source, 404) => return Ok(None),
                Err(KubeError::Api { source, .. }) if is(&source, 403) => {
                    return Err(Unread::Forbidden(listing.to_string()));
                }
                Err(error) => return Err(error.into()),
            };
            if let Value::Array(more) = page["items"].take() {
                items.extend(more);
            }
            next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() {
                return Ok(Some(items));
            }
        }
        Err(Unread::TooMany(listing.to_string()))
    }

    /// What the API server says of itself, as `v1.36.3`.
    ///
    /// # Errors
    /// [`KubeError::Api`], [`KubeError::TimedOut`].
    pub async fn version(&self) -> Result<String, KubeError> {
        let said = self.get("/version").await?;
        Ok(said["gitVersion"].as_str().unwrap_or_default().to_owned())
    }

    async fn get(&self, path: &str) -> Result<Value, KubeError> {
        let request = Request::get(path).body(Vec::new());
        let request = request.expect("a path of letters and escapes is a URI");
        patiently("read from the Kubernetes API", self.client.request::<Value>(request)).await
    }
}

/// What a pod's object says; `None` for what is none.
#[must_use]
pub fn pod_facts(object: &Value) -> Option<PodFacts> {
    serde_json::from_value::<SlimPod>(object.clone()).ok()?.facts()
}

/// What a namespace's object says; `None` for what is none.
#[must_use]
pub fn namespace_facts(object: &Value) -> Option<NamespaceFacts> {
    serde_json::from_value::<SlimNamespace>(object.clone()).ok()?.facts()
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// For a query: all but letters and digits.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::kube::Metrics;

    /// Two pages of pods; nobody may read policies; there is nothing else.
    fn answer(request: &Request<Body>) -> (StatusCode, Value) {
        let asked = request.uri().to_string();
        let status = |code: u16| {
            let code = StatusCode::from_u16(code).unwrap();
            (code, json!({"kind": "Status", "status": "Failure", "code": code.as_u16()}))
        };
        match asked.as_str() {
            "/api/v1/pods?limit=500" => (
                StatusCode::OK,
                json!({"metadata": {"continue": "a/b="}, "items": [{"metadata": {"name": "p1"}}]}),
            ),
            "/api/v1/pods?limit=500&continue=a%2Fb%3D" => {
                (StatusCode::OK, json!({"metadata": {}, "items": [{"metadata": {"name": "p2"}}]}))
            }
            "/api/v1/configmaps?limit=500&fieldSelector=metadata.name%3Dcilium-config" => {
                (StatusCode::OK, json!({"items": []}))
            }
            "/apis/networking.k8s.io/v1/networkpolicies?limit=500" => status(403),
            "/version" => (StatusCode::OK, json!({"gitVersion": "v1.36.3"})),
            _ => status(404),
        }
    }

    fn api() -> KubeApi {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let (code, body) = answer(&request);
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        KubeApi::with_client(Client::new(service, "default"), "n1".into(), Metrics::default())
    }

    #[tokio::test]
    async fn all_pages_are_read_and_what_is_missing_is_told_apart() {
        let api = api();
        assert_eq!(api.version().await.unwrap(), "v1.36.3");
        let pods = api.items(&Listing::all("v1", "pods")).await.unwrap().unwrap();
        assert_eq!(pods.len(), 2);
        let named = Listing::named("configmaps", "cilium-config");
        assert_eq!(api.items(&named).await.unwrap(), Some(Vec::new()));
        let absent = Listing::all("cilium.io/v2", "ciliumnetworkpolicies");
        assert_eq!(api.items(&absent).await.unwrap(), None);
        let denied = Listing::all("networking.k8s.io/v1", "networkpolicies");
        let told = api.items(&denied).await.unwrap_err().to_string();
        let expected =
            "the account may not list networkpolicies.networking.k8s.io: verb list is missing";
        assert_eq!(told, expected);
    }
}
