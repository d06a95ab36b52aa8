//! Calico with its iptables data plane and VXLAN: Felix programs routes and policies, the
//! plugin makes pods' links, addresses come from Calico's own pools. Kubernetes is its
//! datastore, so there is neither Typha nor BIRD.

use serde_json::json;

use super::IptablesKind;
use crate::cluster::harness::control_plane::{FurnishError, node_name};
use crate::cluster::harness::machine::{Machine, Service};
use crate::cluster::harness::plan::Plan;
use crate::cluster::harness::tools::Tools;
use crate::cluster::harness::worker::{FOLDER, host};

const STARTUP: &str = "calico-startup";

pub(super) fn furnish(
    machine: &mut Machine,
    number: u8,
    plan: Plan,
    tools: &Tools,
    iptables: IptablesKind,
) -> Result<(), FurnishError> {
    for (program, package) in
        [("iptables", "iptables"), ("ipset", "ipset"), ("conntrack", "conntrack")]
    {
        tools.system(program, package)?;
    }
    let plugin = tools.built("calico", "calico")?;
    // One program under two names.
    machine.install(&plugin, "/opt/cni/bin/calico")?;
    machine.install(&plugin, "/opt/cni/bin/calico-ipam")?;
    let list = conflist(plan);
    machine.write("/etc/cni/net.d/10-calico.conflist", list.as_bytes())?;
    let node = tools.built("calico", "calico-node")?;
    let named = |service: Service| {
        settings(plan, number).into_iter().fold(service, |it, (name, value)| it.env(name, value))
    };
    machine.services.push(named(Service::task(STARTUP, &node)).arg("-startup"));
    let tunnel = named(Service::daemon("calico-tunnel", &node)).arg("-allocate-tunnel-addrs");
    machine.services.push(tunnel.after(STARTUP));
    let felix = named(Service::daemon("calico-felix", &node)).arg("-felix").after(STARTUP);
    machine.services.push(felix.env("FELIX_IPTABLESBACKEND", iptables.felix()));
    Ok(())
}

impl IptablesKind {
    /// How Felix calls it.
    fn felix(self) -> &'static str {
        match self {
            Self::Nft => "NFT",
            Self::Legacy => "Legacy",
        }
    }
}

/// What all programs of a node are told, by the names of Calico's configuration reference.
fn settings(plan: Plan, number: u8) -> Vec<(&'static str, String)> {
    let mut settings: Vec<(&str, String)> = [
        ("DATASTORE_TYPE", "kubernetes"),
        ("FELIX_DATASTORETYPE", "kubernetes"),
        ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ("CLUSTER_TYPE", "k8s"),
        ("WAIT_FOR_DATASTORE", "true"),
        ("CALICO_DISABLE_FILE_LOGGING", "true"),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
        ("FELIX_HEALTHENABLED", "true"),
        ("FELIX_USAGEREPORTINGENABLED", "false"),
        ("FELIX_LOGSEVERITYSCREEN", "Info"),
        // Neither device exists in every kernel.
        ("CALICO_IPV4POOL_IPIP", "Never"),
        ("CALICO_IPV4POOL_VXLAN", "Always"),
        ("CALICO_IPV6POOL_VXLAN", "Always"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    let node = node_name(number);
    settings.push(("KUBECONFIG", format!("{FOLDER}/primary.kubeconfig")));
    settings.extend(
        ["NODENAME", "CALICO_K8S_NODE_REF", "FELIX_FELIXHOSTNAME"].map(|name| (name, node.clone())),
    );
    for own in plan.node(number) {
        settings.push((if own.is_ipv4() { "IP" } else { "IP6" }, own.to_string()));
    }
    let has = |v6: bool| plan.node(number).iter().any(|own| own.is_ipv6() == v6);
    for pods in plan.pods() {
        let v6 = pods.contains(':');
        let name = if v6 { "CALICO_IPV6POOL_CIDR" } else { "CALICO_IPV4POOL_CIDR" };
        settings.push((name, pods.to_owned()));
    }
    if !has(false) {
        settings.push(("IP", "none".to_owned()));
    }
    settings.push(("FELIX_IPV6SUPPORT", has(true).to_string()));
    settings
}

fn conflist(plan: Plan) -> String {
    let wants = |v6: bool| plan.pods().iter().any(|pods| pods.contains(':') == v6).to_string();
    let list = json!({
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "plugins": [
            {
                "type": "calico",
                "log_level": "info",
                "datastore_type": "kubernetes",
                "nodename_file_optional": false,
                "mtu": 0,
                "ipam": {"type": "calico-ipam", "assign_ipv4": wants(false), "assign_ipv6": wants(true)},
                "policy": {"type": "k8s"},
                "kubernetes": {
                    "k8s_api_root": format!("https://{}:{}", host(plan), super::super::plan::API_PORT),
                    "kubeconfig": format!("{FOLDER}/primary.kubeconfig"),
                },
            },
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ],
    });
    format!("{list:#}\n")
}
