//! The primary CNIs: what each adds to nodes and to the cluster.

mod bridge;
mod calico;
mod cilium;
mod flannel;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::control_plane::FurnishError;
use super::machine::Machine;
use super::plan::Plan;
use super::tools::Tools;
use super::worker::ServiceProxy;

/// A primary CNI and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary {
    /// The reference plugin `bridge`, with routes between the nodes.
    Bridge,
    /// Flannel with VXLAN.
    Flannel,
    /// Calico with VXLAN and the iptables data plane.
    Calico(IptablesKind),
    /// Cilium with VXLAN.
    Cilium(CiliumMode),
}

/// What Cilium does beside carrying packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CiliumMode {
    /// Nothing: kube-proxy leads to Services, the node's own stack routes.
    KubeProxy,
    /// It leads to Services: in sockets of the node, and for pods at their links.
    Replacing,
    /// As [`Self::Replacing`], and its programs route and translate past the node's own stack.
    BpfRouting,
    /// As [`Self::Replacing`], but in pods' sockets too: what a pod sends never has the
    /// Service's address.
    SocketLb,
}

/// The kernel's side of `iptables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IptablesKind {
    /// nf_tables.
    Nft,
    /// The older x_tables.
    Legacy,
}

/// A name that is no primary CNI.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0} is none of: {names}", names = names())]
pub struct UnknownPrimary(String);

fn names() -> String {
    Primary::ALL.map(|primary| primary.to_string()).join(", ")
}

impl Primary {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Bridge,
        Self::Flannel,
        Self::Calico(IptablesKind::Nft),
        Self::Calico(IptablesKind::Legacy),
        Self::Cilium(CiliumMode::KubeProxy),
        Self::Cilium(CiliumMode::Replacing),
        Self::Cilium(CiliumMode::BpfRouting),
        Self::Cilium(CiliumMode::SocketLb),
    ];

    /// The group of programs that it needs besides those of every cluster, for
    /// `scripts/cluster-tools`.
    #[must_use]
    pub fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Bridge => &[],
            Self::Flannel => &["flannel", "flannel-plugin"],
            Self::Calico(_) => &["calico"],
            Self::Cilium(_) => &["cilium"],
        }
    }

    /// Its name, version and mode, for people.
    #[must_use]
    pub fn described(self, tools: &Tools) -> String {
        let (name, mode) = match self {
            Self::Bridge => ("bridge", "routes"),
            Self::Flannel => ("Flannel", "VXLAN"),
            Self::Calico(IptablesKind::Nft) => ("Calico", "VXLAN, iptables-nft"),
            Self::Calico(IptablesKind::Legacy) => ("Calico", "VXLAN, iptables-legacy"),
            Self::Cilium(CiliumMode::KubeProxy) => ("Cilium", "VXLAN, kube-proxy"),
            Self::Cilium(CiliumMode::Replacing) => {
                ("Cilium", "VXLAN, no kube-proxy, socketLB.hostNamespaceOnly")
            }
            Self::Cilium(CiliumMode::BpfRouting) => {
                ("Cilium", "VXLAN, no kube-proxy, BPF host routing, bpf.masquerade")
            }
            Self::Cilium(CiliumMode::SocketLb) => ("Cilium", "VXLAN, no kube-proxy, socketLB"),
        };
        let group = self.groups().first().copied().unwrap_or("plugins");
        match tools.version(group) {
            Some(version) => format!("{name} {version} ({mode})"),
            None => format!("{name} ({mode})"),
        }
    }

    /// Settings of the chart that this primary needs, as `helm --set` takes them.
    #[must_use]
    pub fn chart_values(self) -> &'static [&'static str] {
        match self {
            Self::Bridge | Self::Flannel | Self::Calico(_) => &[],
            Self::Cilium(_) => &["cilium.probePolicy=true"],
        }
    }

    /// What implements Services beside it.
    pub(crate) fn service_proxy(self) -> ServiceProxy {
        match self {
            Self::Bridge | Self::Flannel => ServiceProxy::Mode("nftables"),
            Self::Calico(_) | Self::Cilium(CiliumMode::KubeProxy) => ServiceProxy::Mode("iptables"),
            Self::Cilium(_) => ServiceProxy::Primary,
        }
    }

    /// Manifests that the cluster needs before the nodes boot.
    pub(crate) fn manifests(self, tools: &Tools) -> Result<Vec<PathBuf>, FurnishError> {
        match self {
            Self::Bridge | Self::Flannel | Self::Cilium(_) => Ok(Vec::new()),
            Self::Calico(_) => Ok(vec![tools.built("calico", "crds.yaml")?]),
        }
    }

    /// Adds its programs to the control plane's machine, with a kubeconfig for them.
    pub(crate) fn furnish_middle(
        self,
        machine: &mut Machine,
        kubeconfig: &str,
        tools: &Tools,
    ) -> Result<(), FurnishError> {
        match self {
            Self::Bridge | Self::Flannel | Self::Calico(_) => Ok(()),
            Self::Cilium(_) => cilium::furnish_middle(machine, kubeconfig, tools),
        }
    }

    /// Writes its files to a node's disk and adds its programs.
    pub(crate) fn furnish(
        self,
        machine: &mut Machine,
        number: u8,
        plan: Plan,
        tools: &Tools,
    ) -> Result<(), FurnishError> {
        match self {
            Self::Bridge => bridge::furnish(machine, number, plan),
            Self::Flannel => flannel::furnish(machine, number, plan, tools),
            Self::Calico(iptables) => calico::furnish(machine, number, plan, tools, iptables),
            Self::Cilium(mode) => cilium::furnish(machine, number, plan, tools, mode),
        }
    }

    /// Whether the nodes' wire has to know the way to the pods.
    pub(crate) fn needs_routes(self) -> bool {
        self == Self::Bridge
    }
}

impl FromStr for Primary {
    type Err = UnknownPrimary;

    fn from_str(text: &str) -> Result<Self, UnknownPrimary> {
        let found = Self::ALL.into_iter().find(|primary| primary.to_string() == text);
        found.ok_or_else(|| UnknownPrimary(text.to_owned()))
    }
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
            Self::Calico(IptablesKind::Nft) => "calico",
            Self::Calico(IptablesKind::Legacy) => "calico-legacy",
            Self::Cilium(CiliumMode::KubeProxy) => "cilium",
            Self::Cilium(CiliumMode::Replacing) => "cilium-replacing",
            Self::Cilium(CiliumMode::BpfRouting) => "cilium-bpf-routing",
            Self::Cilium(CiliumMode::SocketLb) => "cilium-socketlb",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_primary_is_found_by_its_name() {
        for primary in Primary::ALL {
            assert_eq!(primary.to_string().parse::<Primary>().unwrap(), primary);
        }
        let told = "weave".parse::<Primary>().unwrap_err().to_string();
        assert!(told.contains("weave") && told.contains("flannel"), "{told}");
    }
}
