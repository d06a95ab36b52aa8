//! What runs on a node whatever its primary CNI: containerd, kubelet and kube-proxy.

use serde_json::json;

use super::control_plane::{Credentials, FurnishError, node_name};
use super::machine::{Machine, Service};
use super::plan::Plan;
use super::tools::{ToolError, Tools};

/// Where its kubeconfigs and settings lie.
pub(crate) const FOLDER: &str = "/etc/kubernetes";
/// containerd's socket.
pub(crate) const RUNTIME: &str = "/run/containerd/containerd.sock";
/// The image of the process that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "sluice.test/pause:1";

/// Reference plugins that the primaries delegate to.
const PLUGINS: [&str; 6] = ["bridge", "host-local", "loopback", "portmap", "tuning", "bandwidth"];

/// Settings that a kubelet insists on, and would change for the whole host.
const KUBELETS_KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The way in which Services are implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceProxy {
    /// By kube-proxy in this mode: `nftables` or `iptables`.
    Mode(&'static str),
    /// By the primary CNI itself.
    Primary,
}

/// Where pods' control groups are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodGroups {
    /// Side by side: pods without requests get as much of a busy machine as all others.
    #[default]
    Flat,
    /// A group for each pod, named by its UID, as kubelets make them unless told otherwise. Who
    /// looks for a pod's processes goes by that name.
    PerPod,
}

/// Writes a node's files and says what is to run on it.
pub(crate) fn furnish(
    machine: &mut Machine,
    (number, plan): (u8, Plan),
    tools: &Tools,
    credentials: &Credentials,
    proxy: ServiceProxy,
    pods: PodGroups,
) -> Result<(), FurnishError> {
    let api = host(plan);
    let own = credentials.kubeconfig(&api, &format!("system:node:{}", node_name(number)));
    for (path, content) in [
        (format!("{FOLDER}/kubelet.kubeconfig"), own),
        (format!("{FOLDER}/proxy.kubeconfig"), credentials.kubeconfig(&api, "system:kube-proxy")),
        // For the daemons of the primary CNI, which bring their own roles elsewhere.
        (format!("{FOLDER}/primary.kubeconfig"), credentials.kubeconfig(&api, "admin")),
        (format!("{FOLDER}/ca.pem"), credentials.authority.certificate().to_owned()),
        (format!("{FOLDER}/kubelet.json"), kubelet_config(plan, pods)),
        (format!("{FOLDER}/resolv.conf"), format!("nameserver {}\n", plan.control_plane()[0].ip())),
        ("/etc/containerd/config.toml".to_owned(), containerd_config()),
    ] {
        machine.write(&path, content.as_bytes())?;
    }
    for plugin in PLUGINS {
        machine.install(&tools.built("plugins", plugin)?, &format!("/opt/cni/bin/{plugin}"))?;
    }
    machine.write("/etc/cni/net.d/.keep", b"")?;
    let pretended = KUBELETS_KERNEL.map(|(setting, value)| (setting.to_owned(), value.to_owned()));
    machine.pretended = pretended.into();
    machine.services = vec![containerd(tools)?, kubelet(number, plan, tools)?];
    if let ServiceProxy::Mode(mode) = proxy {
        machine.services.push(kube_proxy(number, plan, tools, mode)?);
    }
    Ok(())
}

/// The API's host as it stands in addresses of the web.
pub(crate) fn host(plan: Plan) -> String {
    match plan.control_plane()[0].ip() {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn containerd(tools: &Tools) -> Result<Service, ToolError> {
    tools.system("runc", "runc")?;
    let program = tools.system("containerd", "containerd")?;
    Ok(Service::daemon("containerd", &program).args(["-c", "/etc/containerd/config.toml"]))
}

fn kubelet(number: u8, plan: Plan, tools: &Tools) -> Result<Service, ToolError> {
    let addresses: Vec<_> = plan.node(number).iter().map(|own| own.ip().to_string()).collect();
    Ok(Service::daemon("kubelet", &tools.built("kubernetes", "kubelet")?).args([
        format!("--config={FOLDER}/kubelet.json"),
        format!("--kubeconfig={FOLDER}/kubelet.kubeconfig"),
        format!("--hostname-override={}", node_name(number)),
        format!("--node-ip={}", addresses.join(",")),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ]))
}

fn kube_proxy(number: u8, plan: Plan, tools: &Tools, mode: &str) -> Result<Service, ToolError> {
    Ok(Service::daemon("kube-proxy", &tools.built("kubernetes", "kube-proxy")?).args([
        format!("--kubeconfig={FOLDER}/proxy.kubeconfig"),
        format!("--hostname-override={}", node_name(number)),
        format!("--proxy-mode={mode}"),
        format!("--cluster-cidr={}", plan.pods().join(",")),
        // Limits of connection tracking are the host's and not a namespace's to set.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        "--nodeport-addresses=primary".to_owned(),
    ]))
}

fn kubelet_config(plan: Plan, pods: PodGroups) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": if plan.control_plane()[0].is_ipv4() { "0.0.0.0" } else { "::" },
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{FOLDER}/ca.pem")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{RUNTIME}"),
        "clusterDNS": plan.name_server(),
        "clusterDomain": "cluster.local",
        "resolvConf": format!("{FOLDER}/resolv.conf"),
        "failSwapOn": false,
        // Machines here still have the first version of control groups.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": pods == PodGroups::PerPod,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 250,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": false,
    });
    format!("{config:#}\n")
}

fn containerd_config() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{RUNTIME}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  # A machine may lack the capability to lower this score, as the host it is part of.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
    )
}
