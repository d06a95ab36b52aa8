//! Where scenarios may make things: in namespaces of their own, or in one that was given to
//! the user of the suite, who may have no other.

use std::time::Duration;

use anyhow::Context;
use lab::cluster::access::{AccessError, Cluster, NodeFacts, paths};
use serde_json::{Value, json};

use super::ground::{PATIENCE, RUN_LABEL, START};

/// Pods that are placed to learn the names of nodes.
const PLACED: [&str; 2] = ["place-1", "place-2"];
/// What the suite may have made, and in which group; owners before what they own.
const KINDS: [(&str, &str); 8] = [
    ("batch/v1", "jobs"),
    ("apps/v1", "statefulsets"),
    ("v1", "pods"),
    ("v1", "services"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("security.istio.io/v1", "authorizationpolicies"),
    ("security.istio.io/v1", "peerauthentications"),
    ("v1", "serviceaccounts"),
];

/// Where scenarios may make things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// In namespaces of their own.
    Own,
    /// In this namespace, which was there before and stays.
    Given(String),
}

impl Room {
    /// The error of a scenario is that the user may not do something, which says nothing about
    /// the mesh.
    pub(super) fn explains(&self, error: &anyhow::Error) -> bool {
        let refused = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<AccessError>().and_then(AccessError::code) == Some(403)
        };
        *self != Self::Own && error.chain().any(refused)
    }
}

/// Nodes on which pods of a namespace are put, for who may not list the cluster's: at most
/// two, found by two pods that do not want to share one.
pub(super) async fn nodes_of(
    cluster: &Cluster,
    namespace: &str,
    image: &str,
) -> anyhow::Result<Vec<NodeFacts>> {
    let mut nodes = Vec::new();
    for name in PLACED {
        let pods = paths::core(namespace, "pods");
        cluster.create(&pods, &placed(name, image)).await.context("place a pod")?;
        let path = paths::pod(namespace, name);
        let has_address = |pod: &Value| NodeFacts::of_pod(pod).is_some();
        match cluster.wait(&path, "a node", patience(&nodes), has_address).await {
            Ok(pod) => nodes.extend(NodeFacts::of_pod(&pod)),
            // There is no second node.
            Err(AccessError::TimedOut { .. }) if !nodes.is_empty() => {}
            Err(error) => return Err(error).context("place a pod"),
        }
    }
    Ok(nodes)
}

/// Images may have to be pulled for the first; the second has a node at once, or never.
fn patience(nodes: &[NodeFacts]) -> Duration {
    if nodes.is_empty() { START } else { PATIENCE }
}

fn placed(name: &str, image: &str) -> Value {
    let app = json!({"matchLabels": {"app": "place"}});
    let term = json!({"labelSelector": app, "topologyKey": "kubernetes.io/hostname"});
    json!({
        "metadata": {"name": name, "labels": {"app": "place"}},
        "spec": {
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
            },
            "containers": [{
                "name": "app",
                "image": image,
                "command": [super::pods::PROGRAM, "app", "serve"],
            }],
        },
    })
}

/// Removes all that a run has made in a namespace that stays, and waits until it is gone: the
/// next scenario uses the same names.
pub(super) async fn sweep(cluster: &Cluster, namespace: &str, run: &str) -> anyhow::Result<()> {
    let label = format!("{RUN_LABEL}={run}");
    let mut leaving = Vec::new();
    for (group, kind) in KINDS {
        let collection = match group {
            "v1" => paths::core(namespace, kind),
            group => paths::group(group, namespace, kind),
        };
        let query = [("labelSelector", label.as_str())];
        let made = match cluster.list(&paths::with_query(&collection, &query)).await {
            Ok(made) => made,
            // What may not be seen, or is not known, was not made.
            Err(error) if matches!(error.code(), Some(403 | 404)) => continue,
            Err(error) => return Err(error.into()),
        };
        for object in made {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{collection}/{name}");
            cluster.delete_with_dependents(&path).await?;
            leaving.push(path);
        }
    }
    for path in leaving {
        cluster.wait_gone(&path, START).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16) -> anyhow::Error {
        let [what, reason, message] = ["POST /pods", "Forbidden", "no"].map(str::to_owned);
        let refused = AccessError::Refused { what, code, reason, message };
        anyhow::Error::new(refused).context("create a pod")
    }

    #[test]
    fn a_missing_right_explains_a_failure_in_a_given_namespace_only() {
        let given = Room::Given("mine".to_owned());
        assert!(given.explains(&error(403)));
        assert!(!given.explains(&error(500)));
        assert!(!given.explains(&anyhow::anyhow!("expected x, observed y")));
        assert!(!Room::Own.explains(&error(403)));
    }
}
