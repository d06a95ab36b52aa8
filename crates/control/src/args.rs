//! What the program is told, by flags or by its environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use control::{CaStore, KubeApi, Settings};

/// Serves workload discovery and certificates to ztunnel in clusters without istiod.
///
/// The Kubernetes API is found as kubectl finds it: KUBECONFIG, ~/.kube/config, or the
/// service account of the pod.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long, env = "LISTEN_ADDR", default_value = "[::]:15012")]
    pub(crate) listen_addr: SocketAddr,
    /// Trust domain of all identities.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Domain of the cluster's services, as kubelets are told it.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Namespace whose policies without a selector apply to the whole mesh.
    #[arg(long, env = "ROOT_NAMESPACE", default_value = "sluice-system")]
    root_namespace: String,
    /// Name of the cluster, first part of the workloads' uids.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// DNS names and IP addresses that clients dial.
    #[arg(
        long,
        env = "SERVER_NAMES",
        value_delimiter = ',',
        default_value = "sluice-control.sluice-system.svc,localhost"
    )]
    server_names: Vec<String>,
    /// Service accounts of node proxies, namespace/name.
    #[arg(
        long,
        env = "TRUSTED_NODE_ACCOUNTS",
        value_delimiter = ',',
        default_value = "sluice-system/ztunnel"
    )]
    trusted_node_accounts: Vec<String>,
    /// Folder that keeps the root key; without it every start makes a new root.
    #[arg(long, env = "CA_DIR")]
    ca_dir: Option<PathBuf>,
    /// File to write the root certificate to, for the proxies.
    #[arg(long, env = "ROOT_CERT_FILE")]
    pub(crate) root_cert_file: Option<PathBuf>,
    /// What is logged, as in RUST_LOG.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
}

impl Args {
    /// What the control plane is told.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            cluster_id: self.cluster_id.clone(),
            server_names: self.server_names.clone(),
            trusted_node_accounts: self.trusted_node_accounts.clone(),
            ca: self.ca_dir.clone().map_or(CaStore::Memory, CaStore::Folder),
            ..Settings::new(KubeApi::Infer)
        }
    }
}
