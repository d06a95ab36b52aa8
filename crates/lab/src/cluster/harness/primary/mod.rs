//! The primary CNIs: what each adds to nodes and to the cluster.

mod bridge;
mod flannel;

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

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
}

/// A name that is no primary CNI.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0} is none of: {names}", names = Primary::NAMES.join(", "))]
pub struct UnknownPrimary(String);

impl Primary {
    /// All of them, by name.
    pub const NAMES: [&str; 2] = ["bridge", "flannel"];

    /// What implements Services beside it.
    pub(crate) fn service_proxy(self) -> ServiceProxy {
        match self {
            Self::Bridge | Self::Flannel => ServiceProxy::Mode("nftables"),
        }
    }

    /// Objects that the cluster needs before the nodes boot.
    pub(crate) fn objects(self, _tools: &Tools) -> Result<Vec<Value>, FurnishError> {
        match self {
            Self::Bridge | Self::Flannel => Ok(Vec::new()),
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
        match text {
            "bridge" => Ok(Self::Bridge),
            "flannel" => Ok(Self::Flannel),
            other => Err(UnknownPrimary(other.to_owned())),
        }
    }
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_primary_that_has_this_name() {
        for name in Primary::NAMES {
            assert_eq!(name.parse::<Primary>().unwrap().to_string(), name);
        }
        let told = "weave".parse::<Primary>().unwrap_err().to_string();
        assert!(told.contains("weave") && told.contains("flannel"), "{told}");
    }
}
