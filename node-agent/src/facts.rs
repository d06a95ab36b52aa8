//! What is known about pods and namespaces, in our own words. Whoever observes something
//! (the API watch, the plugin) makes these; the pure rooms decide over them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::enrollment::{Key, Labels};

/// A pod's UID: the name of one life of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a pod is found in the API. Re-used by the next pod of the same name, so it never
/// identifies one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a pod's containers may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They may, now or later.
    Alive,
    /// They have ended and will not be started again (`Succeeded`, `Failed`).
    Ended,
}

/// Whose network a pod uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own.
    Own,
    /// The node's (`hostNetwork: true`).
    Host,
}

/// One pod as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Which pod.
    pub uid: PodUid,
    /// Where it stands in the API.
    pub name: PodName,
    /// The service account its identity is made of.
    pub service_account: String,
    /// The label `istio.io/dataplane-mode`, as written.
    pub dataplane_mode: Option<String>,
    /// Its labels, as far as the operator's selectors ask for them.
    pub labels: Labels,
    /// It carries a sidecar (annotation `sidecar.istio.io/status`).
    pub sidecar: bool,
    /// What its owner wants for it, as written.
    pub options: BTreeMap<Key, String>,
    /// Whose network it uses.
    pub network: Network,
    /// Whether its containers may still run.
    pub phase: Phase,
    /// Its deletion was asked for.
    pub terminating: bool,
    /// Its addresses; empty until the kubelet has reported them.
    pub ips: Vec<IpAddr>,
    /// The ports at which the kubelet dials it: probes, and hooks of its containers' lives.
    pub probe_ports: BTreeSet<u16>,
    /// What it says about itself to peers and people.
    pub annotations: Annotations,
}

/// The annotations of a pod that are ours to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `ambient.istio.io/redirection` is `enabled`: peers use the tunnel.
    pub redirection: bool,
    /// `sluice.dev/observed`: what people are told.
    pub observed: Option<String>,
}

/// One namespace as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// The label `istio.io/dataplane-mode`, as written.
    pub dataplane_mode: Option<String>,
    /// Its labels, as far as the operator's selectors ask for them.
    pub labels: Labels,
}
