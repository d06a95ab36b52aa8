//! The two objects that are ours: the Secret that keeps the root, and the ConfigMap from
//! which node proxies take its certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::settings::ObjectName;

/// Key and certificate, one text, so that there is never one without the other.
const ROOT_KEY: &str = "root.pem";
/// As istiod calls it in its ConfigMap, so that proxies mount either.
const CERTIFICATE_KEY: &str = "root-cert.pem";
/// For one call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at the ConfigMap: somebody may have removed it.
const LOOK: Duration = Duration::from_secs(60);
/// After a failure: proxies cannot start without it.
const RETRY: Duration = Duration::from_secs(2);

/// Why an object of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The API answered with an error, or not at all.
    #[error("{step} {name}: {source}")]
    Api {
        /// What was tried.
        step: &'static str,
        /// Of which object.
        name: ObjectName,
        /// What came of it.
        source: Box<kube::Error>,
    },
    /// The API did not answer.
    #[error("{step} {name}: the Kubernetes API has not answered within 5 s")]
    Deadline {
        /// What was tried.
        step: &'static str,
        /// Of which object.
        name: ObjectName,
    },
    /// Somebody else's Secret, or a broken one.
    #[error("secret {name} has no text under {ROOT_KEY}: remove it to get a new root")]
    NoRoot {
        /// Which one.
        name: ObjectName,
    },
}

impl OwnError {
    /// Whether it may be another time.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::NoRoot { .. })
    }
}

/// What became of an attempt to store a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is there.
    Ours,
    /// Another one was there first.
    AnotherWasFirst,
}

/// Reads and writes them.
#[derive(Clone)]
pub(crate) struct Own {
    client: Client,
}

impl Own {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The root in this Secret; `None` without the Secret.
    pub(crate) async fn root(&self, name: &ObjectName) -> Result<Option<String>, OwnError> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
        let secret = asked("read secret", name, secrets.get_opt(&name.name)).await?;
        let Some(secret) = secret else { return Ok(None) };
        let root = secret.data.and_then(|mut data| data.remove(ROOT_KEY));
        let text = root.and_then(|ByteString(bytes)| String::from_utf8(bytes).ok());
        text.map(Some).ok_or_else(|| OwnError::NoRoot { name: name.clone() })
    }

    /// Makes the Secret, and never overwrites one.
    pub(crate) async fn store(&self, name: &ObjectName, root: &str) -> Result<Stored, OwnError> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
        let secret = Secret {
            metadata: metadata(name),
            data: Some([(ROOT_KEY.to_owned(), ByteString(root.into()))].into()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let parameters = PostParams::default();
        match asked("create secret", name, secrets.create(&parameters, &secret)).await {
            Ok(_) => Ok(Stored::Ours),
            Err(error) if is_conflict(&error) => Ok(Stored::AnotherWasFirst),
            Err(error) => Err(error),
        }
    }

    /// Keeps the certificate in this ConfigMap, until it is stopped.
    pub(crate) async fn publish(self, name: ObjectName, pem: String, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = match self.publish_once(&name, &pem).await {
                Ok(Published::Before) => LOOK,
                Ok(Published::Now) => {
                    tracing::info!(config_map = %name, "the root certificate was published");
                    LOOK
                }
                Err(error) => {
                    tracing::error!(%error, "the root certificate is not published: proxies wait");
                    RETRY
                }
            };
        }
    }

    async fn publish_once(&self, name: &ObjectName, pem: &str) -> Result<Published, OwnError> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let present = asked("read config map", name, maps.get_opt(&name.name)).await?;
        let data = BTreeMap::from([(CERTIFICATE_KEY.to_owned(), pem.to_owned())]);
        let Some(present) = present else {
            let map =
                ConfigMap { metadata: metadata(name), data: Some(data), ..ConfigMap::default() };
            let parameters = PostParams::default();
            asked("create config map", name, maps.create(&parameters, &map)).await?;
            return Ok(Published::Now);
        };
        if present.data.unwrap_or_default().get(CERTIFICATE_KEY).is_some_and(|it| it == pem) {
            return Ok(Published::Before);
        }
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({ "data": data })));
        asked("patch config map", name, maps.patch(&name.name, &parameters, &patch)).await?;
        Ok(Published::Now)
    }
}

enum Published {
    Before,
    Now,
}

/// Not of any release of a chart: an installation that is removed and made again keeps its
/// root, and so every certificate that pods still have.
fn metadata(name: &ObjectName) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        labels: Some(
            [("app.kubernetes.io/part-of", "sluice"), ("app.kubernetes.io/managed-by", "control")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ),
        ..ObjectMeta::default()
    }
}

async fn asked<T>(
    step: &'static str,
    name: &ObjectName,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, OwnError> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(OwnError::Api { step, name: name.clone(), source: Box::new(source) })
        }
        Err(_) => Err(OwnError::Deadline { step, name: name.clone() }),
    }
}

fn is_conflict(error: &OwnError) -> bool {
    let OwnError::Api { source, .. } = error else { return false };
    matches!(&**source, kube::Error::Api(status) if status.code == 409)
}
