//! What is known about the cluster's objects, free of Kubernetes types.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use mesh::PolicyKey;

mod service;

pub(crate) use service::{
    Distribution, EndpointFacts, Families, Internal, NodeFacts, ServiceFacts, ServicePort,
    ServiceType, SliceFacts, SlicePort, Target, TargetPort, Unready,
};

/// A pod, as far as the mesh is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Empty until it is scheduled.
    pub(crate) node: String,
    pub(crate) service_account: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) network: PodNetwork,
    pub(crate) life: Life,
    pub(crate) health: Health,
    pub(crate) reach: Reach,
    pub(crate) labels: BTreeMap<String, String>,
    /// What made it, if anything did.
    pub(crate) owner: Option<Owner>,
    /// Its containers' TCP ports that have names.
    pub(crate) ports: BTreeMap<String, u16>,
}

impl PodFacts {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The addresses that are its alone.
    pub(crate) fn own_addresses(&self) -> &[IpAddr] {
        match (self.network, self.life) {
            (PodNetwork::Own, Life::Active) => &self.addresses,
            _ => &[],
        }
    }

    pub(crate) fn account(&self) -> Account {
        Account { namespace: self.namespace.clone(), name: self.service_account.clone() }
    }
}

/// Whose addresses a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodNetwork {
    /// Its own.
    Own,
    /// Its node's.
    Host,
}

/// Can it still run?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Pending, running, or being terminated.
    Active,
    /// Succeeded or failed: never again, and its address may be somebody else's.
    Ended,
}

/// May it be sent new connections by a service? Kubernetes' readiness; nobody who is about
/// to end is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    NotReady,
}

/// What its node agent says about how to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Captured: through the tunnel.
    Tunnel,
    /// Plain TCP.
    Direct,
}

/// The controlling owner of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Account {
    /// Reads `namespace/name`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let fine = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        fine.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Reads the user name that Kubernetes gives to a service account.
    pub(crate) fn from_username(text: &str) -> Option<Self> {
        let (namespace, name) = text.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        Self::parse(&format!("{namespace}/{name}"))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An AuthorizationPolicy as the API holds it: nothing in `spec` has been believed yet.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFacts {
    pub(crate) key: PolicyKey,
    /// Value of the annotation `istio.io/dry-run`.
    pub(crate) dry_run: Option<String>,
    pub(crate) spec: serde_json::Value,
}

/// A PeerAuthentication as the API holds it: nothing in `spec` has been believed yet.
#[derive(Clone, Debug)]
pub(crate) struct PeerFacts {
    pub(crate) key: PolicyKey,
    /// When it was made, as the API writes it: later is larger.
    pub(crate) created: String,
    pub(crate) spec: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_service_accounts_have_accounts() {
        let account = Account::from_username("system:serviceaccount:shop:cart").unwrap();
        assert_eq!(account.to_string(), "shop/cart");
        for text in [
            "kubernetes-admin",
            "system:node:n1",
            "system:serviceaccount:shop",
            "system:serviceaccount::cart",
            "system:serviceaccount:shop:",
            "system:serviceaccount:shop:a/b",
            "xsystem:serviceaccount:shop:cart",
        ] {
            assert_eq!(Account::from_username(text), None, "{text}");
        }
    }
}
