//! What all pods share.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use mesh::{Home, Network, UnknownPolicy};
use netns::{Fence, PortUse};

use super::descriptors::Descriptors;
use super::limits::Limits;
use super::tune::TcpSettings;
use crate::dns::{self, Mode};
use crate::hbone;
use crate::identity::Certificates;
use crate::source::ViewHandle;
use crate::telemetry::Telemetry;
use crate::worker::Workers;

/// What is done for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Their connections are carried, and their lookups answered.
    Proxy,
    /// Their lookups are answered, and nothing else: no port for connections is bound.
    NameServer,
}

/// Does this node use IPv6?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// Listeners serve both families where the pod's kernel has IPv6.
    Enabled,
    /// Listeners serve IPv4 only.
    Disabled,
}

/// Is a client told whose answer it gets?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBaggage {
    /// Yes: its logs and metrics can name the server.
    Sent,
    /// No.
    Withheld,
}

/// Which address applications see behind inbound connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// The client's.
    Client,
    /// The pod's own.
    Pod,
}

/// Where an application listens that takes the traffic of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppTunnel {
    /// On the pod's loopback address, where nobody else can speak in its place.
    Loopback,
    /// On the pod's address.
    PodAddress,
}

/// Settings of the proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the pods are.
    pub home: Home,
    /// What is done for pods.
    pub role: Role,
    /// The network whose addresses the pods have.
    pub network: Network,
    /// In which trust domain pods are looked upon until the control plane has said it; none
    /// is guessed.
    pub trust_domain: Option<String>,
    /// Packet mark of all sockets of proxies, by which the rules that capture tell them from
    /// those of applications. None where the rules tell them by ztunnel's user.
    pub packet_mark: Option<u32>,
    /// Address families.
    pub ipv6: Ipv6,
    /// Whether ports that we bind may be shared with the next or the last ztunnel.
    pub port_use: PortUse,
    /// What answers say about the server.
    pub response_baggage: ResponseBaggage,
    /// What a policy means that has not arrived.
    pub unknown_policy: UnknownPolicy,
    /// Sizes and times of tunnels.
    pub hbone: hbone::Settings,
    /// Name servers in the pods.
    pub dns: dns::Settings,
    /// Options of sockets.
    pub tcp: TcpSettings,
    /// What applications see.
    pub source_address: SourceAddress,
    /// Where applications listen that take the traffic of others.
    pub app_tunnel: AppTunnel,
    /// What one pod may use up.
    pub limits: Limits,
    /// How long streams may go on in a tunnel whose client's certificate has expired.
    pub drain_deadline: Duration,
    /// The time of day, by which certificates expire.
    pub clock: fn() -> SystemTime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            home: Home::default(),
            role: Role::Proxy,
            network: "".into(),
            trust_domain: None,
            packet_mark: Some(zds::PACKET_MARK.value),
            ipv6: Ipv6::Enabled,
            port_use: PortUse::Shared,
            response_baggage: ResponseBaggage::Sent,
            unknown_policy: UnknownPolicy::Deny,
            hbone: hbone::Settings::default(),
            dns: dns::Settings::default(),
            tcp: TcpSettings::default(),
            source_address: SourceAddress::Client,
            app_tunnel: AppTunnel::Loopback,
            limits: Limits::default(),
            drain_deadline: Duration::from_secs(5),
            clock: SystemTime::now,
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
    pub(super) workers: Workers,
    pub(super) descriptors: Descriptors,
    /// Of the pod that was told last. Pods of one mesh have the same, so that a new pod's
    /// certificate need not wait for the control plane.
    pub(super) trust_domain: ArcSwapOption<String>,
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
        workers: Workers,
        settings: Settings,
    ) -> Arc<Self> {
        let descriptors = Descriptors::of_this_process();
        let trust_domain = ArcSwapOption::from_pointee(settings.trust_domain.clone());
        Arc::new(Self {
            view,
            certificates,
            telemetry,
            fence,
            workers,
            descriptors,
            trust_domain,
            settings,
        })
    }

    /// Whether pods have name servers.
    #[must_use]
    pub fn name_servers(&self) -> Mode {
        self.settings.dns.mode
    }
}
