//! PURE. Does a pod belong to the mesh, and with which rules? The only place that decides.

mod selectors;
mod values;
mod wishes;

use std::collections::BTreeSet;
use std::fmt;

use capture::Options;

use crate::facts::{NamespaceFacts, Network, Phase, PodFacts};

pub use selectors::{Labels, Selected, Selectors};
pub use wishes::{Instead, Key, Mistake, Older, Wishes};

/// What the operator decided for the whole node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pods of these namespaces are never captured.
    pub excluded_namespaces: BTreeSet<String>,
    /// Which pods belong to the mesh; without, those that are labelled for it.
    pub selectors: Option<Selectors>,
    /// The rules of every captured pod that wants nothing else.
    pub options: Options,
    /// What happens to connections older than the capture, likewise.
    pub older: Older,
}

impl Settings {
    /// Keys of labels that the decision asks for, besides the label of the mesh.
    #[must_use]
    pub fn label_keys(&self) -> BTreeSet<String> {
        self.selectors.as_ref().map(Selectors::keys).unwrap_or_default()
    }
}

/// The decision about one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrollment {
    /// It belongs to the mesh; these are its rules.
    Capture(Options),
    /// It does not, or not now.
    Skip(Reason),
}

/// Why a pod is not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither the pod nor its namespace is labelled.
    NotLabelled,
    /// No selector of the operator's matches.
    NotSelected,
    /// The pod says `none`.
    OptedOut,
    /// It uses the node's network, which is never touched.
    HostNetwork,
    /// A sidecar does the work already.
    Sidecar,
    /// Its containers have ended.
    Ended,
    /// It is being deleted and was not captured before.
    Terminating,
    /// The operator excluded its namespace.
    ExcludedNamespace,
    /// Nobody has told an address yet.
    NoAddress,
    /// Its namespace is not in view yet.
    NamespaceUnknown,
    /// A label has a value that means nothing.
    BadLabel {
        /// Whose label: `pod` or `namespace`.
        of: &'static str,
        /// What it says.
        value: String,
    },
}

impl Reason {
    /// Whether a pod that is captured is let go for this reason. A gap in what is known,
    /// or a typing mistake, is no wish: what worked goes on working.
    #[must_use]
    pub fn releases(&self) -> bool {
        match self {
            Self::NotLabelled | Self::NotSelected | Self::OptedOut => true,
            Self::HostNetwork | Self::Sidecar => true,
            Self::ExcludedNamespace => true,
            Self::Ended | Self::Terminating | Self::NoAddress => false,
            Self::NamespaceUnknown | Self::BadLabel { .. } => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLabelled => f.write_str("neither pod nor namespace is labelled for the mesh"),
            Self::NotSelected => f.write_str("no enablement selector of the agent matches"),
            Self::OptedOut => f.write_str("the pod's label opts out of the mesh"),
            Self::HostNetwork => f.write_str("the pod uses the node's network"),
            Self::Sidecar => f.write_str("the pod carries a sidecar"),
            Self::Ended => f.write_str("the pod's containers have ended"),
            Self::Terminating => f.write_str("the pod is being deleted"),
            Self::ExcludedNamespace => f.write_str("the pod's namespace is excluded"),
            Self::NoAddress => f.write_str("the pod has no address yet"),
            Self::NamespaceUnknown => f.write_str("the pod's namespace is not known yet"),
            Self::BadLabel { of, value } => write!(
                f,
                "label istio.io/dataplane-mode of the {of} says {value:?}, \
                 only \"ambient\" and \"none\" mean something"
            ),
        }
    }
}

/// Decides about one pod; `namespace` is `None` while it is not in view.
#[must_use]
pub fn enrollment(
    pod: &PodFacts,
    wishes: &Wishes,
    namespace: Option<&NamespaceFacts>,
    settings: &Settings,
) -> Enrollment {
    let obstacle = never(pod, settings)
        .or_else(|| unwanted(pod, namespace, settings))
        .or_else(|| not_now(pod));
    match obstacle {
        Some(reason) => Enrollment::Skip(reason),
        None => Enrollment::Capture(options(pod, wishes, settings)),
    }
}

/// The rules of this pod, if it is captured: the node's, with its wishes and its probes.
#[must_use]
pub fn options(pod: &PodFacts, wishes: &Wishes, settings: &Settings) -> Options {
    let mut options = wishes.options(&settings.options);
    options.probes.ports.clone_from(&pod.probe_ports);
    options
}

/// What no label can overrule.
fn never(pod: &PodFacts, settings: &Settings) -> Option<Reason> {
    if pod.network == Network::Host {
        Some(Reason::HostNetwork)
    } else if settings.excluded_namespaces.contains(&pod.name.namespace) {
        Some(Reason::ExcludedNamespace)
    } else if pod.phase == Phase::Ended {
        Some(Reason::Ended)
    } else if pod.sidecar {
        Some(Reason::Sidecar)
    } else {
        None
    }
}

/// What the label says.
enum Mode {
    Ambient,
    None,
    Silent,
    Meaningless(String),
}

fn mode(label: Option<&String>) -> Mode {
    match label.map(String::as_str) {
        Some("ambient") => Mode::Ambient,
        Some("none") => Mode::None,
        None | Some("") => Mode::Silent,
        Some(other) => Mode::Meaningless(other.to_owned()),
    }
}

fn unwanted(
    pod: &PodFacts,
    namespace: Option<&NamespaceFacts>,
    settings: &Settings,
) -> Option<Reason> {
    match &settings.selectors {
        Some(selectors) => unselected(pod, namespace, selectors),
        None => unlabelled(pod, namespace),
    }
}

/// Whatever is selected, a pod that says `none` stays out.
fn unselected(
    pod: &PodFacts,
    namespace: Option<&NamespaceFacts>,
    selectors: &Selectors,
) -> Option<Reason> {
    if matches!(mode(pod.dataplane_mode.as_ref()), Mode::None) {
        return Some(Reason::OptedOut);
    }
    match selectors.select(&pod.labels, namespace.map(|namespace| &namespace.labels)) {
        Selected::Yes => None,
        Selected::No => Some(Reason::NotSelected),
        Selected::Unknown => Some(Reason::NamespaceUnknown),
    }
}

/// The pod's own word beats its namespace's. A meaningless word of the pod does not: a
/// typing mistake must not open a hole in a namespace that is in the mesh.
fn unlabelled(pod: &PodFacts, namespace: Option<&NamespaceFacts>) -> Option<Reason> {
    let own = mode(pod.dataplane_mode.as_ref());
    match own {
        Mode::Ambient => return None,
        Mode::None => return Some(Reason::OptedOut),
        Mode::Silent | Mode::Meaningless(_) => {}
    }
    let Some(namespace) = namespace else {
        return Some(Reason::NamespaceUnknown);
    };
    match (mode(namespace.dataplane_mode.as_ref()), own) {
        (Mode::Ambient, _) => None,
        (_, Mode::Meaningless(value)) => Some(Reason::BadLabel { of: "pod", value }),
        (Mode::Meaningless(value), _) => Some(Reason::BadLabel { of: "namespace", value }),
        (Mode::None | Mode::Silent, _) => Some(Reason::NotLabelled),
    }
}

fn not_now(pod: &PodFacts) -> Option<Reason> {
    if pod.terminating {
        Some(Reason::Terminating)
    } else if pod.ips.is_empty() {
        Some(Reason::NoAddress)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
