//! Cilium with VXLAN: BPF programs at pods' links carry, translate and admit. Its agent
//! compiles them on the node, for which it needs clang; its operator keeps the definitions of
//! its objects, on the control plane's machine.

use super::CiliumMode;
use crate::cluster::harness::control_plane::{FurnishError, node_name};
use crate::cluster::harness::machine::{Machine, Service};
use crate::cluster::harness::plan::Plan;
use crate::cluster::harness::tools::Tools;
use crate::cluster::harness::worker::{FOLDER, host};
use crate::process;

/// Where Debian keeps the compiler that its agent wants by the name of `clang`.
const COMPILERS: [&str; 2] = ["/usr/lib/llvm-19/bin", "/usr/lib/llvm-22/bin"];
/// The second version of control groups, as a machine sees it: its own part of it.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The operator, for the control plane's machine.
pub(super) fn furnish_middle(
    machine: &mut Machine,
    kubeconfig: &str,
    tools: &Tools,
) -> Result<(), FurnishError> {
    machine.write(&format!("{FOLDER}/primary.kubeconfig"), kubeconfig.as_bytes())?;
    let operator = Service::daemon("cilium-operator", &tools.built("cilium", "operator")?);
    machine.services.push(operator.env("CILIUM_K8S_NAMESPACE", "kube-system").args([
        format!("--k8s-kubeconfig-path={FOLDER}/primary.kubeconfig"),
        "--ipam=kubernetes".to_owned(),
        "--k8s-namespace=kube-system".to_owned(),
    ]));
    Ok(())
}

pub(super) fn furnish(
    machine: &mut Machine,
    number: u8,
    plan: Plan,
    tools: &Tools,
    mode: CiliumMode,
) -> Result<(), FurnishError> {
    tools.system("iptables", "iptables")?;
    machine.install(&tools.built("cilium", "cilium-cni")?, "/opt/cni/bin/cilium-cni")?;
    let library = tools.built("cilium", "bpf/bpf_lxc.c")?;
    let library = library.parent().and_then(std::path::Path::parent).unwrap_or(&library);
    let has = |v6: bool| plan.pods().iter().any(|pods| pods.contains(':') == v6);
    let groups =
        GROUPS.iter().find(|at| std::path::Path::new(at).join("cgroup.controllers").exists());
    let groups = groups.copied().unwrap_or(GROUPS[1]);
    let agent = Service::daemon("cilium-agent", &tools.built("cilium", "daemon")?)
        .env("K8S_NODE_NAME", node_name(number))
        .env("CILIUM_K8S_NAMESPACE", "kube-system")
        .env("PATH", path_with_compiler())
        .args([
            format!("--k8s-kubeconfig-path={FOLDER}/primary.kubeconfig"),
            format!("--lib-dir={}", library.display()),
            format!("--cgroup-root={groups}"),
            format!("--enable-ipv4={}", has(false)),
            format!("--enable-ipv6={}", has(true)),
            format!("--enable-ipv6-masquerade={}", has(true)),
            format!("--k8s-require-ipv4-pod-cidr={}", has(false)),
            format!("--k8s-require-ipv6-pod-cidr={}", has(true)),
        ])
        .args([
            "--bpf-root=/sys/fs/bpf",
            "--state-dir=/var/run/cilium",
            "--ipam=kubernetes",
            "--identity-allocation-mode=crd",
            "--routing-mode=tunnel",
            "--tunnel-protocol=vxlan",
            "--devices=eth0",
            "--enable-ipv4-masquerade=true",
            "--write-cni-conf-when-ready=/etc/cni/net.d/05-cilium.conflist",
            // Else it takes every other configuration away, a chained plugin with it.
            "--cni-exclusive=false",
            "--enable-l7-proxy=false",
            "--enable-envoy-config=false",
            "--enable-hubble=false",
            "--enable-health-checking=false",
            "--enable-endpoint-health-checking=false",
            "--preallocate-bpf-maps=false",
            "--bpf-map-dynamic-size-ratio=0.0025",
        ])
        .args(mode.flags(&host(plan)));
    machine.services.push(agent);
    Ok(())
}

impl CiliumMode {
    fn flags(self, api: &str) -> Vec<String> {
        let past_the_stack = self == Self::BpfRouting;
        let mut flags = vec![
            format!("--kube-proxy-replacement={}", self != Self::KubeProxy),
            format!("--enable-bpf-masquerade={past_the_stack}"),
            format!("--enable-host-legacy-routing={}", !past_the_stack),
        ];
        if self != Self::KubeProxy {
            flags.push(format!("--bpf-lb-sock-hostns-only={}", self != Self::SocketLb));
            // Nobody else leads to the API's Service then.
            flags.push(format!("--k8s-api-server-urls=https://{api}:6443"));
        }
        flags
    }
}

fn path_with_compiler() -> String {
    let usual = process::search_path();
    let found = COMPILERS.iter().filter(|folder| std::path::Path::new(folder).is_dir());
    let folders: Vec<&str> = found.copied().collect();
    format!("{}:{}", folders.join(":"), usual.to_string_lossy())
}
