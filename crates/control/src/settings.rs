//! What a control plane can be told.

use std::fmt;
use std::path::PathBuf;

/// Where Kubernetes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeApi {
    /// As `kubectl` would find it: `KUBECONFIG`, else `~/.kube/config`, else the service
    /// account of the pod that this runs in.
    Infer,
    /// At this URL, without credentials.
    Url(String),
}

/// Where the root key lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaStore {
    /// In memory: every start makes a new root, and proxies must be given it.
    Memory,
    /// In the file `root.pem` (key and certificate, mode 0600) of this folder, made at
    /// the first start.
    Folder(PathBuf),
    /// In this Secret, under `root.pem`, made at the first start. Nobody else may read it:
    /// who has it can be anybody in the mesh.
    Secret(ObjectName),
}

/// An object in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything a [`Control`](crate::Control) is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Kubernetes is.
    pub kube_api: KubeApi,
    /// Of all identities; `cluster.local`.
    pub trust_domain: String,
    /// Last part of the names of services; `cluster.local`.
    pub cluster_domain: String,
    /// Policies in this namespace without a selector apply to the whole mesh;
    /// `sluice-system`.
    pub root_namespace: String,
    /// First part of the workloads' uids; `Kubernetes`.
    pub cluster_id: String,
    /// DNS names and IP addresses that clients dial, for the server's own certificate;
    /// `localhost` and its addresses.
    pub server_names: Vec<String>,
    /// Service accounts (`namespace/name`) of node proxies: only these get certificates
    /// for identities other than their own, and only for pods of their own node;
    /// `sluice-system/ztunnel`.
    pub trusted_node_accounts: Vec<String>,
    /// Where the root key lives; in memory.
    pub ca: CaStore,
    /// ConfigMap in which the root's certificate is kept, under `root-cert.pem`, for those
    /// who dial us; none.
    pub root_config_map: Option<ObjectName>,
}

impl Settings {
    /// The defaults that the fields name.
    #[must_use]
    pub fn new(kube_api: KubeApi) -> Self {
        Self {
            kube_api,
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: "sluice-system".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            server_names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            trusted_node_accounts: vec!["sluice-system/ztunnel".to_owned()],
            ca: CaStore::Memory,
            root_config_map: None,
        }
    }
}
