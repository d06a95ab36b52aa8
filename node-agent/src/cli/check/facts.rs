//! What was seen of cluster and node, before anybody judges it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::policy::Policy;
use crate::enrollment::Labels;
use crate::facts::{NamespaceFacts, PodFacts, PodName};
use crate::rules::ProbeSource;

/// What was seen, or why it was not.
pub type Known<T> = Result<T, String>;

/// A pod, with the ports that its containers declare.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What decisions need.
    pub facts: PodFacts,
    /// Ports of its containers, with their names.
    pub ports: Vec<(Option<String>, u16)>,
}

/// A pod of the mesh.
#[derive(Clone, Debug)]
pub struct MeshPod {
    /// Where it stands.
    pub name: PodName,
    /// Its labels.
    pub labels: Labels,
    /// Ports of its containers, with their names.
    pub ports: Vec<(Option<String>, u16)>,
}

/// A node, as its kubelet describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its kernel's version.
    pub kernel: String,
    /// Its runtime's name and version.
    pub runtime: String,
    /// Its kubelet's version.
    pub kubelet: String,
}

/// Settings of Cilium's agent by the names that its flags have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CiliumSettings {
    /// Where they were read.
    pub from: String,
    /// They.
    pub values: BTreeMap<String, String>,
}

impl CiliumSettings {
    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value == "true")
    }
}

/// What the API shows.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// The API server's version.
    pub version: Known<String>,
    /// All nodes.
    pub nodes: Known<Vec<NodeInfo>>,
    /// All pods.
    pub pods: Known<Vec<Pod>>,
    /// All namespaces.
    pub namespaces: Known<Vec<NamespaceFacts>>,
    /// ConfigMaps `cilium-config`.
    pub cilium: Known<Vec<CiliumSettings>>,
    /// The mode that `kube-proxy`'s ConfigMap says.
    pub proxy_mode: Known<Option<String>>,
    /// Calico's FelixConfigurations; `None` where the cluster has no such kind.
    pub felix: Known<Option<Vec<Value>>>,
    /// Calico's version.
    pub calico_version: Known<Option<String>>,
    /// The data plane that Calico's operator was told.
    pub calico_data_plane: Known<Option<String>>,
    /// The policy that admits the kubelet's probes with Cilium.
    pub probe_policy: Known<Option<String>>,
    /// Network policies by kind; kinds that the cluster has not are left out.
    pub policies: BTreeMap<&'static str, Known<Vec<Policy>>>,
}

/// What the node shows from here.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether our rules could be written in a namespace made for it.
    pub rules: Known<Result<(), String>>,
    /// The folder of network configurations and who said so.
    pub conf_dir: String,
    /// Whether files can be made there.
    pub conf_writable: Known<()>,
    /// The file that the runtime takes, and its plugins in order; `None`: no usable one.
    pub conf: Known<Option<(String, Vec<String>)>>,
    /// Where the plugin's program is and can be executed.
    pub program: Known<String>,
    /// What the agent's `/readyz` said.
    pub agent: Known<(u16, String)>,
    /// What kube-proxy says of itself.
    pub proxy_mode: Known<String>,
    /// What the running cilium-agent was told; `None`: there is none.
    pub cilium: Known<Option<CiliumSettings>>,
}

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The API, or why it cannot be asked.
    pub cluster: Known<ClusterFacts>,
    /// The node, or why it is not looked at.
    pub node: Known<NodeFacts>,
    /// How the agent tells probes from other traffic.
    pub probe_source: ProbeSource,
    /// The pods of the mesh.
    pub mesh: Known<Vec<MeshPod>>,
}

impl Facts {
    /// What Cilium was told: what its running agent says counts, then what the API says.
    pub(super) fn cilium_settings(&self) -> Vec<&CiliumSettings> {
        if let Ok(NodeFacts { cilium: Ok(Some(running)), .. }) = &self.node {
            return vec![running];
        }
        let told = self.cluster.as_ref().ok().and_then(|it| it.cilium.as_ref().ok());
        told.into_iter().flatten().collect()
    }

    /// Pods that carry this label, by namespace and name.
    pub(super) fn labelled(&self, key: &str, value: &str) -> BTreeSet<String> {
        let pods = self.cluster.as_ref().ok().and_then(|it| it.pods.as_ref().ok());
        let pods = pods.into_iter().flatten().map(|pod| &pod.facts);
        let has = |pod: &&PodFacts| pod.labels.get(key).is_some_and(|it| it == value);
        pods.filter(has).map(|pod| pod.name.to_string()).collect()
    }

    /// The plugins of the list that the runtime takes on this node.
    pub(super) fn plugins(&self) -> &[String] {
        match &self.node {
            Ok(NodeFacts { conf: Ok(Some((_, plugins))), .. }) => plugins,
            _ => &[],
        }
    }
}
