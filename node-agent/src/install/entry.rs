//! PURE. Our plugin's entry in a list: its whole configuration.

use std::collections::BTreeSet;

use serde::Serialize;

/// The plugin's type, which is the name of its program.
pub use super::binary::NAME as PLUGIN;

/// Name of the network that stands there while nobody has made one: nothing starts in it, for
/// our plugin needs one before it.
const WAITING: &str = "sluice-waits-for-a-primary-plugin";

/// In which namespaces the pods of well-known primary plugins usually live. Their pods must
/// start without us where they are not in the node's own network.
const HOMES: [(&str, &[&str]); 6] = [
    ("calico", &["calico-system", "calico-apiserver", "tigera-operator"]),
    ("flannel", &["kube-flannel"]),
    ("multus", &["openshift-multus"]),
    ("multus-shim", &["openshift-multus"]),
    ("ovn-k8s-cni-overlay", &["openshift-ovn-kubernetes", "ovn-kubernetes"]),
    ("cilium-cni", &["cilium"]),
];

/// Which pods start while the agent does not answer, besides those of excluded namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAgentAbsent {
    /// None.
    #[default]
    Closed,
    /// Those that the agent has written down as being outside the mesh.
    AllowKnown,
}

/// What the plugin is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Where the agent listens, as the runtime sees it.
    pub agent_socket: String,
    /// Their pods start without the agent being asked.
    pub exclude_namespaces: BTreeSet<String>,
    /// Within this time every verb is answered; 1 to 60.
    pub timeout_seconds: u64,
    /// Who starts without the agent.
    pub when_agent_absent: WhenAgentAbsent,
    /// Where the plugin writes its log, as the runtime sees it; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<String>,
    /// How long that may become; `None`: as the plugin likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_max_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    entry: &'a Entry,
    /// Marks a list that is ours as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    list_of: Option<&'a str>,
}

impl Entry {
    /// As it stands among plugins of these kinds; `list_of` names the file of which a list
    /// that is ours as a whole is made.
    #[must_use]
    pub fn text<'a>(&self, kinds: impl Iterator<Item = &'a str>, list_of: Option<&str>) -> String {
        let mut entry = self.clone();
        for kind in kinds {
            let homes = HOMES.iter().filter(|(known, _)| *known == kind);
            let homes = homes.flat_map(|(_, homes)| homes.iter().map(ToString::to_string));
            entry.exclude_namespaces.extend(homes);
        }
        let written = Written { kind: PLUGIN, entry: &entry, list_of };
        serde_json::to_string(&written).expect("texts and numbers have a JSON form")
    }

    /// A list of our plugin alone.
    #[must_use]
    pub fn waiting(&self) -> String {
        let entry = self.text(std::iter::empty(), Some(""));
        format!(
            "{{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"{WAITING}\",\n  \"plugins\": [\n    \
             {entry}\n  ]\n}}\n"
        )
    }
}
