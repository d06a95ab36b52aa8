//! Objects that scenarios create beside pods. PURE, but for their creation.

use std::net::IpAddr;

use anyhow::Context;
use lab::cluster::access::paths;
use serde_json::{Value, json};

use super::ground::Ground;
use crate::scenario::Skip;

impl Ground {
    /// Creates an AuthorizationPolicy and gives its path.
    ///
    /// # Errors
    /// [`Skip`] where the cluster does not know the kind.
    pub(crate) async fn authorization_policy(
        &self,
        namespace: &str,
        name: &str,
        spec: &Value,
    ) -> anyhow::Result<String> {
        let object = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.custom(&paths::authorization_policies(namespace), name, &object).await
    }

    /// From now on pods of the namespace take mutual TLS only.
    ///
    /// # Errors
    /// [`Skip`] where the cluster does not know the kind.
    pub(crate) async fn strict(&self, namespace: &str) -> anyhow::Result<String> {
        let object = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "strict"},
            "spec": {"mtls": {"mode": "STRICT"}},
        });
        self.custom(&paths::peer_authentications(namespace), "strict", &object).await
    }

    async fn custom(&self, collection: &str, name: &str, object: &Value) -> anyhow::Result<String> {
        match self.cluster.create(collection, object).await {
            Ok(_) => Ok(format!("{collection}/{name}")),
            Err(error) if error.code() == Some(404) => {
                let kind = object["kind"].as_str().unwrap_or_default();
                Err(Skip(format!("the cluster does not know the kind {kind}")).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a network policy for pods that have the label `app` of one of these names.
    pub(crate) async fn network_policy(
        &self,
        namespace: &str,
        name: &str,
        app: &str,
        ingress: &Value,
    ) -> anyhow::Result<String> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name},
            "spec": {
                "podSelector": {"matchLabels": {"app": app}},
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            },
        });
        let collection = paths::network_policies(namespace);
        self.cluster.create(&collection, &object).await?;
        Ok(format!("{collection}/{name}"))
    }

    /// Creates a service in front of the pods labelled `app` with its name, and gives the
    /// object. `more` is put over its `spec`.
    pub(crate) async fn service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        more: &Value,
    ) -> anyhow::Result<Value> {
        let mut spec = json!({
            "selector": {"app": name},
            "ports": [{"name": "lines", "port": port, "targetPort": super::pods::APP_PORT}],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let object = json!({"metadata": {"name": name}, "spec": spec});
        Ok(self.cluster.create(&paths::core(namespace, "services"), &object).await?)
    }
}

/// The first cluster address of a service.
pub(crate) fn cluster_ip(service: &Value) -> anyhow::Result<IpAddr> {
    let text = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    text.parse().with_context(|| format!("a service with the address {text:?}"))
}

/// The node port of a service's first port.
pub(crate) fn node_port(service: &Value) -> anyhow::Result<u16> {
    let number = service["spec"]["ports"][0]["nodePort"].as_u64();
    number.and_then(|number| u16::try_from(number).ok()).context("a service without a node port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services_are_read() {
        let service = json!({"spec": {"clusterIP": "10.96.0.7", "ports": [{"nodePort": 31000}]}});
        assert_eq!(cluster_ip(&service).unwrap(), IpAddr::from([10, 96, 0, 7]));
        assert_eq!(node_port(&service).unwrap(), 31000);
        let headless = json!({"spec": {"clusterIP": "None"}});
        assert!(cluster_ip(&headless).is_err() && node_port(&headless).is_err());
    }
}
