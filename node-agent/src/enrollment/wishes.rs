//! PURE. What one pod wants to be different from the node's settings.
//!
//! ```text
//! annotations ─► texts by Key ─► Wishes::hear ─┬─► Wishes: what counts
//!                  last good Wishes ────┘      └─► Mistakes: what people are told
//! ```
//!
//! A text that means nothing changes nothing: what counted before goes on counting, or the
//! node's setting where nothing did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use capture::{Dns, Inbound, Options, PortRange, Uncaptured};
use ipnetwork::IpNetwork;

use super::values;

/// The options that a pod's owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Ports of the pod that stay direct.
    ExcludeInboundPorts,
    /// Ports that the pod dials directly, wherever they are.
    ExcludeOutboundPorts,
    /// Destinations that the pod dials directly.
    ExcludeOutboundCidrs,
    /// Whether the pod's lookups go to ztunnel.
    DnsCapture,
    /// Whether what arrives in plaintext goes past ztunnel.
    BypassInboundCapture,
    /// Interfaces with guests behind them.
    RerouteVirtualInterfaces,
    /// What happens to traffic that cannot be captured.
    UncapturedProtocols,
    /// What happens to connections older than the capture.
    OlderConnections,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ExcludeInboundPorts,
        Self::ExcludeOutboundPorts,
        Self::ExcludeOutboundCidrs,
        Self::DnsCapture,
        Self::BypassInboundCapture,
        Self::RerouteVirtualInterfaces,
        Self::UncapturedProtocols,
        Self::OlderConnections,
    ];

    /// The annotation. Where Istio's ambient mode has one it is the same. The annotations
    /// of its sidecars are not read: ambient mode ignores them too, and what a pod carries
    /// from its time with a sidecar must not open it in a mesh without.
    #[must_use]
    pub fn annotation(self) -> &'static str {
        match self {
            Self::ExcludeInboundPorts => "sluice.dev/exclude-inbound-ports",
            Self::ExcludeOutboundPorts => "sluice.dev/exclude-outbound-ports",
            Self::ExcludeOutboundCidrs => "sluice.dev/exclude-outbound-cidrs",
            Self::DnsCapture => "ambient.istio.io/dns-capture",
            Self::BypassInboundCapture => "ambient.istio.io/bypass-inbound-capture",
            Self::RerouteVirtualInterfaces => "istio.io/reroute-virtual-interfaces",
            Self::UncapturedProtocols => "sluice.dev/uncaptured-protocols",
            Self::OlderConnections => "sluice.dev/older-connections",
        }
    }

    /// The option with this annotation.
    #[must_use]
    pub fn of(annotation: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.annotation() == annotation)
    }

    /// What may be written there, for people.
    #[must_use]
    pub fn allowed(self) -> &'static str {
        match self {
            Self::ExcludeInboundPorts | Self::ExcludeOutboundPorts => {
                "at most 64 ports or ranges separated by commas, as 22,8000-8010; \
                 not 15001, 15006, 15008 or 15053"
            }
            Self::ExcludeOutboundCidrs => {
                "at most 64 networks or addresses separated by commas, as 10.0.0.0/8,fd00::1"
            }
            Self::DnsCapture | Self::BypassInboundCapture => "true or false",
            Self::RerouteVirtualInterfaces => {
                "at most 64 names of interfaces separated by commas, as k6t-eth0; not lo or eth0"
            }
            Self::UncapturedProtocols => "pass or block",
            Self::OlderConnections => "keep, reset or keep-for=<time>, as keep-for=30s, 5m or 1h",
        }
    }
}

/// What happens to connections that were there before their pod was captured, and are not
/// proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// They stay direct until they end.
    Keep,
    /// They are ended as soon as the pod is captured.
    Reset,
    /// They may end by themselves in this time; then they are ended.
    KeepFor(Duration),
}

impl Older {
    /// How long they may live on after the capture; `None` is without an end.
    #[must_use]
    pub fn grace(self) -> Option<Duration> {
        match self {
            Self::Keep => None,
            Self::Reset => Some(Duration::ZERO),
            Self::KeepFor(time) => Some(time),
        }
    }
}

/// What a pod said that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// About what.
    pub key: Key,
    /// What it said, shortened.
    pub value: String,
    /// What is wrong with it.
    pub wrong: String,
    /// Whether something else that it said before still counts.
    pub instead: Instead,
}

/// What counts in the place of a value that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// What the pod said before.
    LastGood,
    /// What the node's settings say.
    Default,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, wrong, .. } = self;
        let instead = match self.instead {
            Instead::LastGood => "what it said before still counts",
            Instead::Default => "the node's default counts",
        };
        let (name, allowed) = (key.annotation(), key.allowed());
        write!(f, "annotation {name}={value:?}: {wrong}; allowed: {allowed}; {instead}")
    }
}

/// What one pod wants; `None` leaves it to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    in_skip: Option<BTreeSet<PortRange>>,
    out_skip: Option<BTreeSet<PortRange>>,
    out_skip_cidrs: Option<BTreeSet<IpNetwork>>,
    dns: Option<Dns>,
    inbound: Option<Inbound>,
    guests: Option<BTreeSet<String>>,
    uncaptured: Option<Uncaptured>,
    older: Option<Older>,
    /// The texts of all of these.
    texts: BTreeMap<Key, String>,
}

impl Wishes {
    /// What counts after a pod has said this, where `self` counted before.
    #[must_use]
    pub fn hear(&self, said: &BTreeMap<Key, String>) -> (Self, Vec<Mistake>) {
        let mut ear = Ear { said, last: &self.texts, texts: BTreeMap::new(), mistakes: Vec::new() };
        let last = self;
        let mut now = Self {
            in_skip: ear.read(Key::ExcludeInboundPorts, values::ports, &last.in_skip),
            out_skip: ear.read(Key::ExcludeOutboundPorts, values::ports, &last.out_skip),
            out_skip_cidrs: {
                ear.read(Key::ExcludeOutboundCidrs, values::networks, &last.out_skip_cidrs)
            },
            dns: ear.read(Key::DnsCapture, values::dns, &last.dns),
            inbound: ear.read(Key::BypassInboundCapture, values::inbound, &last.inbound),
            guests: ear.read(Key::RerouteVirtualInterfaces, values::interfaces, &last.guests),
            uncaptured: ear.read(Key::UncapturedProtocols, values::uncaptured, &last.uncaptured),
            older: ear.read(Key::OlderConnections, values::older, &last.older),
            texts: BTreeMap::new(),
        };
        now.texts = ear.texts;
        (now, ear.mistakes)
    }

    /// The texts that count, to be heard again by a later life of the agent.
    #[must_use]
    pub fn texts(&self) -> &BTreeMap<Key, String> {
        &self.texts
    }

    /// The node's rules with this pod's wishes.
    #[must_use]
    pub fn options(&self, node: &Options) -> Options {
        fn or<T: Clone>(own: &Option<T>, node: &T) -> T {
            own.as_ref().unwrap_or(node).clone()
        }
        Options {
            dns: or(&self.dns, &node.dns),
            in_skip: or(&self.in_skip, &node.in_skip),
            out_skip: or(&self.out_skip, &node.out_skip),
            out_skip_cidrs: or(&self.out_skip_cidrs, &node.out_skip_cidrs),
            inbound: or(&self.inbound, &node.inbound),
            guests: or(&self.guests, &node.guests),
            uncaptured: or(&self.uncaptured, &node.uncaptured),
            ..node.clone()
        }
    }

    /// What happens to connections older than the capture, where `node` is the setting.
    #[must_use]
    pub fn older(&self, node: Older) -> Older {
        self.older.unwrap_or(node)
    }
}

/// Reads one option after the other.
struct Ear<'a> {
    said: &'a BTreeMap<Key, String>,
    last: &'a BTreeMap<Key, String>,
    texts: BTreeMap<Key, String>,
    mistakes: Vec<Mistake>,
}

impl Ear<'_> {
    fn read<T: Clone>(
        &mut self,
        key: Key,
        read: fn(&str) -> Result<T, String>,
        last: &Option<T>,
    ) -> Option<T> {
        let text = self.said.get(&key)?;
        match read(text.trim()) {
            Ok(value) => {
                self.texts.insert(key, text.clone());
                Some(value)
            }
            Err(wrong) => {
                let instead = if last.is_some() { Instead::LastGood } else { Instead::Default };
                let value = values::shortened(text);
                self.mistakes.push(Mistake { key, value, wrong, instead });
                let kept = self.last.get(&key).map(|text| (key, text.clone()));
                self.texts.extend(kept);
                last.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests;
