//! What a cluster has besides nodes: the Kubernetes API, and control. Both run inside
//! the lab's process; their sockets are born where their clients look for them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use control::{Control, Settings};
use serde_json::{Value, json};

use crate::kube_api::{KubeApi, KubeApiError, Limits};
use crate::kube_client::{KubeClient, KubeError, NAMESPACES};
use crate::kubelet::ensure_account;
use crate::net::plan;
use crate::node::Node;
use crate::options::Family;
use crate::place::Place;

/// Trust domain of all identities.
pub(crate) const TRUST_DOMAIN: &str = "cluster.local";
/// Name of the cluster in workload ids.
pub(crate) const CLUSTER_ID: &str = "Kubernetes";
/// Policies of this namespace hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";
/// Where the mesh's own pods live, and what ztunnel's are.
const MESH_NAMESPACE: &str = "sluice-system";
const ZTUNNEL: &str = "ztunnel";
/// Who ztunnel's token is meant for.
const TOKEN_AUDIENCE: &str = "istio-ca";
const NODES: &str = "/api/v1/nodes";
/// A token outlives any demo.
const TOKEN_SECONDS: u64 = 24 * 60 * 60;

/// Why the services are not up, or do not give what is asked of them.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// A socket could not be made.
    #[error("listen on {what}: {source}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The Kubernetes API did not start.
    #[error("start the kubernetes api: {0}")]
    KubeApi(#[from] KubeApiError),
    /// control did not start.
    #[error("start control: {0}")]
    Control(#[from] control::ControlError),
    /// control does not get the cluster's objects.
    #[error("control has not listed the objects of the cluster within {0:?}")]
    NotSynced(Duration),
    /// A node's object could not be made.
    #[error("register a node: {0}")]
    Node(#[source] KubeError),
    /// ztunnel's account, pod or token could not be made.
    #[error("a token for ztunnel: {0}")]
    Token(#[from] KubeError),
    /// The answer held no token.
    #[error("a token for ztunnel: the answer of the kubernetes api has no status.token")]
    NoToken,
    /// The token could not be written down.
    #[error("write {path}: {source}")]
    TokenFile {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The sockets of the services; listening before anything runs, so nobody is refused.
pub(crate) struct Listeners {
    /// Where the user reaches the Kubernetes API.
    pub user: SocketAddr,
    api: Vec<TcpListener>,
    control: TcpListener,
}

impl Listeners {
    pub async fn open(hub: &Place) -> Result<Self, ServicesError> {
        let failed = |what| move |source| ServicesError::Listen { what, source };
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let for_user = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(failed("the host's loopback address"))?;
        let user = for_user.local_addr().map_err(failed("the host's loopback address"))?;
        let for_nodes = hub.listen(any(plan::API_PORT)).await.map_err(failed("hub:6443"))?;
        let control = hub.listen(any(plan::CONTROL_PORT)).await.map_err(failed("hub:15012"))?;
        Ok(Self { user, api: vec![for_nodes, for_user], control })
    }
}

/// The running services.
#[derive(Debug)]
pub(crate) struct Services {
    api: KubeApi,
    control: Control,
}

impl Services {
    pub async fn start(
        listeners: Listeners,
        family: Family,
        patience: Duration,
    ) -> Result<Self, ServicesError> {
        let Listeners { user, api, control } = listeners;
        let service_ranges = plan::services(family);
        let limits = Limits { service_ranges, ..Limits::default() };
        let api = KubeApi::start_with(api, limits).await?;
        let settings = Settings {
            trust_domain: TRUST_DOMAIN.into(),
            root_namespace: ROOT_NAMESPACE.into(),
            cluster_id: CLUSTER_ID.into(),
            server_names: vec![plan::HUB_V4.to_string(), plan::HUB_V6.to_string()],
            trusted_node_accounts: vec![format!("{MESH_NAMESPACE}/{ZTUNNEL}")],
            ..Settings::new(control::KubeApi::Url(format!("http://{user}")))
        };
        let control = Control::start(settings, control).await?;
        let synced = tokio::time::timeout(patience, control.synced()).await;
        synced.map_err(|_| ServicesError::NotSynced(patience))?;
        Ok(Self { api, control })
    }

    /// What ztunnel trusts, in PEM.
    pub fn root_certificate(&self) -> &str {
        self.control.root_pem()
    }

    /// control first: it is a client of the API.
    pub async fn shutdown(self) {
        self.control.shutdown().await;
        self.api.shutdown().await;
    }
}

/// What a kubelet does first: it says that its node is there, and where that is.
pub(crate) async fn register(client: &KubeClient, node: &Node) -> Result<(), ServicesError> {
    let name = node.name();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/region": "lab",
            "topology.kubernetes.io/zone": format!("zone{}", node.number()),
        }},
    });
    client.ensure(NODES, &object).await.map_err(ServicesError::Node)?;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": node.address()}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let path = format!("{NODES}/{name}/status");
    client.merge_patch(&path, &status).await.map(drop).map_err(ServicesError::Node)
}

/// Mints the token of a node's ztunnel, bound to a pod object of that node, as the
/// kubelet would mount it.
pub(crate) async fn place_token(client: &KubeClient, node: &Node) -> Result<(), ServicesError> {
    ensure_account(client, MESH_NAMESPACE, ZTUNNEL).await?;
    let name = format!("{ZTUNNEL}-{}", node.name());
    let pods = format!("{NAMESPACES}/{MESH_NAMESPACE}/pods");
    client.ensure(&pods, &ztunnel_pod(&name, node.name())).await?;
    let pod = client.pod(MESH_NAMESPACE, &name).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [TOKEN_AUDIENCE],
            "expirationSeconds": TOKEN_SECONDS,
            "boundObjectRef": {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": name,
                "uid": pod["metadata"]["uid"],
            },
        },
    });
    let path = format!("{NAMESPACES}/{MESH_NAMESPACE}/serviceaccounts/{ZTUNNEL}/token");
    let answer = client.create(&path, &request).await?;
    let token = answer["status"]["token"].as_str().ok_or(ServicesError::NoToken)?;
    let file = node.token_file();
    std::fs::write(file, token)
        .map_err(|source| ServicesError::TokenFile { path: file.to_owned(), source })
}

/// An object only: the process is started by the lab, in the node's own network.
fn ztunnel_pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": MESH_NAMESPACE, "labels": {"app": ZTUNNEL}},
        "spec": {
            "nodeName": node,
            "hostNetwork": true,
            "serviceAccountName": ZTUNNEL,
            "containers": [{"name": "ztunnel", "image": "lab/ztunnel"}],
        },
    })
}
