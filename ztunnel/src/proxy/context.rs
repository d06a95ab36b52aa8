//! What all pods share.

use std::sync::Arc;

use mesh::Network;
use netns::{Fence, PortUse};

use crate::hbone;
use crate::identity::Certificates;
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;

/// Does this node use IPv6?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// Listeners serve both families where the pod's kernel has IPv6.
    Enabled,
    /// Listeners serve IPv4 only.
    Disabled,
}

/// Settings of the proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The network whose addresses the pods have.
    pub network: Network,
    /// Trust domain of the pods, and of the peers we believe.
    pub trust_domain: String,
    /// Packet mark of all in-pod sockets.
    pub packet_mark: u32,
    /// Address families.
    pub ipv6: Ipv6,
    /// Whether ports that we bind may be shared with the next or the last ztunnel.
    pub port_use: PortUse,
    /// Sizes and times of tunnels.
    pub hbone: hbone::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            network: "".into(),
            trust_domain: "cluster.local".to_owned(),
            packet_mark: zds::PACKET_MARK.value,
            ipv6: Ipv6::Enabled,
            port_use: PortUse::Shared,
            hbone: hbone::Settings::default(),
        }
    }
}

/// The rooms that every proxy stands on.
#[derive(Debug)]
pub struct ProxyContext {
    pub(super) view: ViewHandle,
    pub(super) certificates: Certificates,
    pub(super) telemetry: Telemetry,
    pub(super) fence: Fence,
    pub(super) settings: Settings,
}

impl ProxyContext {
    /// Puts them together.
    #[must_use]
    pub fn new(
        view: ViewHandle,
        certificates: Certificates,
        telemetry: Telemetry,
        fence: Fence,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self { view, certificates, telemetry, fence, settings })
    }
}
