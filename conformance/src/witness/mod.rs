//! Others' parts as witnesses: parts of Istio's ambient mode beside ours on a real cluster, and
//! the same scenarios as ever. What works then was not only understood by both of our own sides.
//!
//! ```text
//! run --cni CNI --witness WHO ─► install: Istio's charts, then ours without that part
//!                             ─► scenarios of the parts ─► JSON
//! witnesses RESULT.json… --into FILE ─► record: part by part, works | differs | fails
//! ```

mod install;
mod parts;
pub(crate) mod record;

use lab::cluster::harness::PodGroups;
use serde::{Deserialize, Serialize};

pub(crate) use install::{Rest, install, settle, version};
pub(crate) use parts::scenarios;

/// Which of the parts are Istio's.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Witness {
    /// The control plane: istiod in the place of our control.
    Istiod,
    /// Node agent and plugin: istio-cni in the place of ours.
    IstioCni,
    /// All of Istio, by its charts alone: only the image of ztunnel is ours.
    Istio,
}

/// Who was a witness in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witnessed {
    /// Which parts.
    pub witness: Witness,
    /// Of which version.
    pub version: String,
}

impl Witness {
    /// Whether the control plane is Istio's.
    fn is_control_plane(self) -> bool {
        matches!(self, Self::Istiod | Self::Istio)
    }

    /// Whether node agent and plugin are Istio's.
    fn is_agent(self) -> bool {
        matches!(self, Self::IstioCni | Self::Istio)
    }

    /// Istio's agent finds running pods by the names of their processes' control groups.
    pub(crate) fn pod_groups(self) -> PodGroups {
        if self.is_agent() { PodGroups::PerPod } else { PodGroups::Flat }
    }

    /// The sides that meet.
    fn title(self) -> &'static str {
        match self {
            Self::Istiod => "Istio's istiod; our node agent, plugin and ztunnel",
            Self::IstioCni => "Istio's node agent and plugin; our control and ztunnel",
            Self::Istio => "Istio's istiod, node agent, plugin and charts; our ztunnel",
        }
    }
}
