//! What runs on the control plane's machine: etcd, the API server, the controllers and the
//! scheduler.

use std::io;
use std::net::IpAddr;

use super::machine::{Machine, Service};
use super::pki::{Authority, Pair, User};
use super::plan::{API_PORT, Plan};
use super::tools::{ToolError, Tools};

/// Where its keys and tokens lie.
const FOLDER: &str = "/etc/kubernetes";
const ETCD: &str = "http://127.0.0.1:2379";

/// Everything that the API server knows its callers by.
pub(crate) struct Credentials {
    pub authority: Authority,
    pub server: Pair,
    /// What the API server shows to kubelets.
    pub to_kubelets: Pair,
    /// Signs service account tokens; the public half verifies them.
    pub signing_key: (String, String),
    pub users: Vec<User>,
}

impl Credentials {
    pub(crate) fn generate(addresses: &[IpAddr], nodes: u8) -> Result<Self, rcgen::Error> {
        let authority = Authority::generate()?;
        let server = authority.server(addresses)?;
        let to_kubelets = authority.client("kube-apiserver", "system:masters")?;
        let mut users = vec![
            User::new("admin", "system:masters")?,
            User::new("system:kube-controller-manager", "system:authenticated")?,
            User::new("system:kube-scheduler", "system:authenticated")?,
            User::new("system:kube-proxy", "system:authenticated")?,
        ];
        for number in 1..=nodes {
            users.push(User::new(format!("system:node:{}", node_name(number)), "system:nodes")?);
        }
        let signing_key = super::pki::signing_key()?;
        Ok(Self { authority, server, to_kubelets, signing_key, users })
    }

    /// The user of this name.
    pub(crate) fn user(&self, name: &str) -> &User {
        let found = self.users.iter().find(|user| user.name == name);
        found.expect("a user that this cluster was made with")
    }

    /// A kubeconfig of the user for the API at `host`.
    pub(crate) fn kubeconfig(&self, host: &str, name: &str) -> String {
        let server = format!("https://{host}:{API_PORT}");
        self.authority.kubeconfig(&server, self.user(name))
    }
}

/// The name of a node, counted from 1.
pub(crate) fn node_name(number: u8) -> String {
    format!("node{number}")
}

/// Writes the machine's files and says what is to run on it.
pub(crate) fn furnish(
    machine: &mut Machine,
    plan: Plan,
    tools: &Tools,
    credentials: &Credentials,
) -> Result<(), FurnishError> {
    let tokens: String = credentials.users.iter().map(User::line).collect();
    let Credentials { server, to_kubelets, signing_key, .. } = credentials;
    for (name, content) in [
        ("ca.pem", credentials.authority.certificate()),
        ("server.pem", &server.certificate),
        ("server.key", &server.key),
        ("kubelet-client.pem", &to_kubelets.certificate),
        ("kubelet-client.key", &to_kubelets.key),
        ("signing.key", &signing_key.0),
        ("signing.pub", &signing_key.1),
        ("tokens.csv", &tokens),
        (
            "controllers.kubeconfig",
            &credentials.kubeconfig("127.0.0.1", "system:kube-controller-manager"),
        ),
        ("scheduler.kubeconfig", &credentials.kubeconfig("127.0.0.1", "system:kube-scheduler")),
    ] {
        machine.write(&format!("{FOLDER}/{name}"), content.as_bytes())?;
    }
    machine.services = vec![etcd(tools)?, api_server(plan, tools)?];
    machine.services.extend([controllers(plan, tools)?, scheduler(tools)?]);
    Ok(())
}

/// Why a machine's disk or programs are not there.
#[derive(Debug, thiserror::Error)]
pub enum FurnishError {
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be written.
    #[error("write to the machine's disk: {0}")]
    Disk(#[from] io::Error),
}

fn etcd(tools: &Tools) -> Result<Service, ToolError> {
    // The machine's disk is in memory, so that it costs nothing to write durably.
    Ok(Service::daemon("etcd", &tools.system("etcd", "etcd-server")?).args([
        "--data-dir=/var/lib/etcd".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ]))
}

fn api_server(plan: Plan, tools: &Tools) -> Result<Service, ToolError> {
    let own = plan.control_plane()[0].ip();
    let file = |name: &str| format!("{FOLDER}/{name}");
    Ok(Service::daemon("kube-apiserver", &tools.built("kubernetes", "kube-apiserver")?).args([
        format!("--etcd-servers={ETCD}"),
        format!("--bind-address={}", if own.is_ipv4() { "0.0.0.0" } else { "::" }),
        format!("--advertise-address={own}"),
        format!("--secure-port={API_PORT}"),
        format!("--tls-cert-file={}", file("server.pem")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.pem")),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--kubelet-client-certificate={}", file("kubelet-client.pem")),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--service-cluster-ip-range={}", plan.services().join(",")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("signing.pub")),
        format!("--service-account-signing-key-file={}", file("signing.key")),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]))
}

fn controllers(plan: Plan, tools: &Tools) -> Result<Service, ToolError> {
    let program = tools.built("kubernetes", "kube-controller-manager")?;
    let mut service = Service::daemon("kube-controller-manager", &program).args([
        format!("--kubeconfig={FOLDER}/controllers.kubeconfig"),
        "--leader-elect=false".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={}", plan.pods().join(",")),
        format!("--service-cluster-ip-range={}", plan.services().join(",")),
        format!("--service-account-private-key-file={FOLDER}/signing.key"),
        format!("--root-ca-file={FOLDER}/ca.pem"),
        "--use-service-account-credentials=true".to_owned(),
    ]);
    if plan.pods().iter().any(|pods| pods.contains(':')) {
        service = service.arg("--node-cidr-mask-size-ipv6=64");
    }
    Ok(service)
}

fn scheduler(tools: &Tools) -> Result<Service, ToolError> {
    let program = tools.built("kubernetes", "kube-scheduler")?;
    let kubeconfig = format!("--kubeconfig={FOLDER}/scheduler.kubeconfig");
    let service = Service::daemon("kube-scheduler", &program).arg(kubeconfig);
    Ok(service.arg("--leader-elect=false"))
}
