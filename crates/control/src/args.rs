//! What the program is told, by flags or by its environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use control::{CaStore, KubeApi, ObjectName, Settings};

use crate::tasks::Task;

/// Serves workload discovery and certificates to ztunnel in clusters without istiod.
///
/// The Kubernetes API is found as kubectl finds it: KUBECONFIG, ~/.kube/config, or the
/// service account of the pod.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Something else than being a control plane.
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
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
    /// Secret in our own namespace that keeps the root key, made at the first start.
    #[arg(long, env = "CA_SECRET", conflicts_with = "ca_dir", requires = "pod_namespace")]
    ca_secret: Option<String>,
    /// ConfigMap in our own namespace to keep the root certificate in, for the proxies.
    #[arg(long, env = "ROOT_CONFIG_MAP", requires = "pod_namespace")]
    root_config_map: Option<String>,
    /// Our own namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,
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
            ca: self.ca(),
            root_config_map: self.own(self.root_config_map.as_ref()),
            ..Settings::new(KubeApi::Infer)
        }
    }

    fn ca(&self) -> CaStore {
        let secret = self.own(self.ca_secret.as_ref()).map(CaStore::Secret);
        secret.or(self.ca_dir.clone().map(CaStore::Folder)).unwrap_or(CaStore::Memory)
    }

    fn own(&self, name: Option<&String>) -> Option<ObjectName> {
        let (name, namespace) = (name?.clone(), self.pod_namespace.clone()?);
        Some(ObjectName { namespace, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let all = ["sluice-control"].iter().chain(arguments);
        Args::try_parse_from(all).map(|args| args.settings())
    }

    #[test]
    fn the_root_is_kept_where_it_is_said() {
        let own = |name: &str| ObjectName { namespace: "mesh".into(), name: name.into() };
        assert_eq!(settings(&[]).unwrap().ca, CaStore::Memory);
        let folder = settings(&["--ca-dir=/ca", "--pod-namespace=mesh"]).unwrap();
        assert_eq!((folder.ca, folder.root_config_map), (CaStore::Folder("/ca".into()), None));
        let kept = settings(&["--ca-secret=ca", "--root-config-map=root", "--pod-namespace=mesh"]);
        let kept = kept.unwrap();
        assert_eq!(kept.ca, CaStore::Secret(own("ca")));
        assert_eq!(kept.root_config_map, Some(own("root")));
    }

    #[test]
    fn objects_without_a_namespace_and_two_places_for_the_root_are_mistakes() {
        for arguments in [
            &["--ca-secret=ca"][..],
            &["--root-config-map=root"],
            &["--ca-secret=ca", "--ca-dir=/ca", "--pod-namespace=mesh"],
        ] {
            assert!(settings(arguments).is_err(), "{arguments:?}");
        }
    }
}
