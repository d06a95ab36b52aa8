//! Services as Istio's dump has them.

use std::collections::BTreeMap;

use mesh::{
    HealthPolicy, IpFamilies, LoadBalancing, Mode, PortMapping, Preference, Service,
    ServiceAddress, ServicePort, View, Visibility, Workload,
};
use serde::Serialize;

use super::workload_json::{GatewayJson, health};

/// A service with its endpoints by the uids of their workloads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceJson<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<String>,
    /// Those that are ranges of addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<RangeJson<'a>>,
    ports: BTreeMap<u16, u16>,
    endpoints: BTreeMap<&'a str, EndpointJson<'a>>,
    subject_alt_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayJson<'a>>,
    /// Ours: the shares of several waypoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<ShareJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<BalancerJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
    canonical: bool,
    /// Nothing where everybody may find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    visibility: Option<&'static str>,
}

#[derive(Serialize)]
struct RangeJson<'a> {
    cidr: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointJson<'a> {
    workload_uid: &'a str,
    port: BTreeMap<u16, u16>,
    status: &'static str,
}

#[derive(Serialize)]
struct ShareJson<'a> {
    #[serde(flatten)]
    waypoint: GatewayJson<'a>,
    weight: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BalancerJson {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

impl<'a> ServiceJson<'a> {
    pub(super) fn of(service: &'a Service, view: &'a View) -> Self {
        let endpoints = view.endpoints(&service.key);
        let (alone, ranges): (Vec<_>, Vec<_>) =
            service.addresses.iter().partition(|address| is_alone(address));
        let vip = |address: &ServiceAddress| format!("{}/{}", address.network, address.net.ip());
        Self {
            name: &service.name,
            namespace: service.key.namespace(),
            hostname: service.key.hostname(),
            vips: alone.into_iter().map(vip).collect(),
            cidr_vips: ranges.into_iter().map(RangeJson::of).collect(),
            ports: ports(&service.ports),
            endpoints: endpoints.map(|it| (&**it.uid(), EndpointJson::of(it, service))).collect(),
            subject_alt_names: service.subject_alt_names.iter().map(ToString::to_string).collect(),
            waypoint: service.waypoint.as_ref().map(GatewayJson::of),
            weighted_waypoints: service
                .weighted_waypoints
                .iter()
                .map(|(gateway, weight)| ShareJson {
                    waypoint: GatewayJson::of(gateway),
                    weight: *weight,
                })
                .collect(),
            load_balancer: BalancerJson::of(&service.load_balancing),
            ip_families: match service.ip_families {
                IpFamilies::Automatic => None,
                IpFamilies::V4 => Some("IPv4"),
                IpFamilies::V6 => Some("IPv6"),
                IpFamilies::Dual => Some("Dual"),
            },
            canonical: service.canonical,
            visibility: match service.visibility {
                Visibility::Public => None,
                Visibility::Namespace => Some("Namespace"),
            },
        }
    }
}

fn is_alone(address: &ServiceAddress) -> bool {
    address.net.prefix() == if address.net.ip().is_ipv4() { 32 } else { 128 }
}

impl<'a> RangeJson<'a> {
    fn of(range: &'a ServiceAddress) -> Self {
        let (ip, length) = (range.net.ip(), range.net.prefix());
        Self { cidr: format!("{ip}/{length}"), network: &range.network }
    }
}

fn ports(ports: &[ServicePort]) -> BTreeMap<u16, u16> {
    ports.iter().map(|port| (port.service_port, port.target_port)).collect()
}

impl<'a> EndpointJson<'a> {
    /// The ports that the workload says, or else those of the service.
    fn of(workload: &'a Workload, service: &Service) -> Self {
        let own = workload.membership(&service.key).map_or(&[][..], |it| &it.ports);
        let pair = |port: &PortMapping| (port.service_port, port.target_port);
        Self {
            workload_uid: workload.uid(),
            port: own.iter().map(pair).collect(),
            status: health(workload.health),
        }
    }
}

impl BalancerJson {
    /// None where the service asks for nothing.
    fn of(balancing: &LoadBalancing) -> Option<Self> {
        if *balancing == LoadBalancing::default() {
            return None;
        }
        let preference = |preference: &Preference| match preference {
            Preference::Region => "Region",
            Preference::Zone => "Zone",
            Preference::Subzone => "Subzone",
            Preference::Node => "Node",
            Preference::Cluster => "Cluster",
            Preference::Network => "Network",
        };
        Some(Self {
            routing_preferences: balancing.preferences.iter().map(preference).collect(),
            mode: match balancing.mode {
                Mode::Unspecified => "Standard",
                Mode::Strict => "Strict",
                Mode::Failover => "Failover",
                Mode::Passthrough => "Passthrough",
            },
            health_policy: match balancing.health {
                HealthPolicy::OnlyHealthy => "OnlyHealthy",
                HealthPolicy::AllowAll => "AllowAll",
            },
        })
    }
}
