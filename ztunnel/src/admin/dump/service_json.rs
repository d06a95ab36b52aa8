//! Services as Istio's dump has them.

use std::collections::BTreeMap;

use mesh::{
    HealthPolicy, IpFamilies, LoadBalancing, Mode, PortMapping, Preference, Service, ServicePort,
    View, Workload,
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
        let vip = |address: &mesh::ServiceAddress| {
            let (ip, length) = (address.net.ip(), address.net.prefix());
            let alone = length == if ip.is_ipv4() { 32 } else { 128 };
            let range = if alone { String::new() } else { format!("/{length}") };
            format!("{}/{ip}{range}", address.network)
        };
        Self {
            name: &service.name,
            namespace: service.key.namespace(),
            hostname: service.key.hostname(),
            vips: service.addresses.iter().map(vip).collect(),
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
        }
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
