//! Runtimes and distributions whose places are known.

use std::path::PathBuf;

use super::Said;

/// One of them.
pub(super) struct Distribution {
    /// For the log.
    pub name: &'static str,
    /// It is there when this is.
    pub sign: &'static str,
    /// Configurations of its runtime, later ones overruling.
    pub files: &'static [&'static str],
    /// A folder of more of them.
    pub folder: Option<&'static str>,
    /// Where it has network configurations, whatever those files say.
    conf_dir: Option<&'static str>,
    /// Where it has plugins.
    bin_dir: Option<&'static str>,
}

impl Distribution {
    pub(super) fn said(&self) -> Said {
        Said {
            conf_dir: self.conf_dir.map(PathBuf::from),
            bin_dirs: self.bin_dir.map(PathBuf::from).into_iter().collect(),
        }
    }
}

/// The first that is there counts.
pub(super) const DISTRIBUTIONS: [Distribution; 6] = [
    Distribution {
        name: "k3s",
        sign: "/var/lib/rancher/k3s/agent",
        files: &["/var/lib/rancher/k3s/agent/etc/containerd/config.toml"],
        folder: None,
        conf_dir: Some("/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        bin_dir: Some("/var/lib/rancher/k3s/data/cni"),
    },
    Distribution {
        name: "RKE2",
        sign: "/var/lib/rancher/rke2/agent",
        files: &["/var/lib/rancher/rke2/agent/etc/containerd/config.toml"],
        folder: None,
        conf_dir: None,
        bin_dir: None,
    },
    Distribution {
        name: "MicroK8s",
        sign: "/var/snap/microk8s/current",
        files: &["/var/snap/microk8s/current/args/containerd.toml"],
        folder: None,
        conf_dir: Some("/var/snap/microk8s/current/args/cni-network"),
        bin_dir: Some("/var/snap/microk8s/current/opt/cni/bin"),
    },
    Distribution {
        name: "k0s",
        sign: "/var/lib/k0s",
        files: &["/run/k0s/containerd-cri.toml", "/etc/k0s/containerd.toml"],
        folder: Some("/etc/k0s/containerd.d"),
        conf_dir: None,
        bin_dir: None,
    },
    // Multus is asked by CRI-O there, in a folder of its own.
    Distribution {
        name: "OpenShift",
        sign: "/etc/kubernetes/cni/net.d",
        files: &["/etc/crio/crio.conf"],
        folder: Some("/etc/crio/crio.conf.d"),
        conf_dir: Some("/etc/kubernetes/cni/net.d"),
        bin_dir: Some("/var/lib/cni/bin"),
    },
    Distribution {
        name: "GKE",
        sign: "/home/kubernetes/bin",
        files: &["/etc/containerd/config.toml"],
        folder: None,
        conf_dir: None,
        bin_dir: Some("/home/kubernetes/bin"),
    },
];

/// Wherever it is installed as its own packages do.
pub(super) const CONTAINERD: Distribution = Distribution {
    name: "containerd",
    sign: "/run/containerd/containerd.sock",
    files: &["/etc/containerd/config.toml"],
    folder: Some("/etc/containerd/conf.d"),
    conf_dir: None,
    bin_dir: None,
};

/// As its own packages do.
pub(super) const CRIO: Distribution = Distribution {
    name: "CRI-O",
    sign: "/run/crio/crio.sock",
    files: &["/usr/share/containers/crio.conf", "/etc/crio/crio.conf"],
    folder: Some("/etc/crio/crio.conf.d"),
    conf_dir: None,
    bin_dir: None,
};
