//! A service in YAML.

use std::collections::BTreeMap;

use mesh::proto::workload as proto;
use serde::Deserialize;

use super::text::{Gateway, place};
use super::workload::port;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    name: String,
    namespace: String,
    hostname: String,
    /// `network/ip` each.
    #[serde(default)]
    vips: Vec<String>,
    /// Service port to target port.
    #[serde(default)]
    ports: BTreeMap<u16, u16>,
    #[serde(default)]
    subject_alt_names: Vec<String>,
    waypoint: Option<Gateway>,
    load_balancer: Option<LoadBalancer>,
    #[serde(default)]
    ip_families: IpFamilies,
    #[serde(default)]
    canonical: bool,
    #[serde(default)]
    visibility: Visibility,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadBalancer {
    #[serde(default)]
    routing_preferences: Vec<Preference>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    health_policy: HealthPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Preference {
    Region = 1,
    Zone = 2,
    Subzone = 3,
    Node = 4,
    Cluster = 5,
    Network = 6,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Mode {
    #[default]
    Standard = 0,
    Strict = 1,
    Failover = 2,
    Passthrough = 3,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum HealthPolicy {
    #[default]
    OnlyHealthy = 0,
    AllowAll = 1,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum IpFamilies {
    #[default]
    Automatic = 0,
    IPv4 = 1,
    IPv6 = 2,
    Dual = 3,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Visibility {
    #[default]
    Public = 0,
    Namespace = 1,
}

impl Entry {
    pub(super) fn message(self) -> Result<proto::Service, String> {
        let vips = self.vips.iter().map(|text| place("vips", text));
        let balancing = |it: LoadBalancer| proto::LoadBalancing {
            routing_preference: it.routing_preferences.iter().map(|it| *it as i32).collect(),
            mode: it.mode as i32,
            health_policy: it.health_policy as i32,
        };
        Ok(proto::Service {
            name: self.name,
            namespace: self.namespace,
            hostname: self.hostname,
            addresses: vips.collect::<Result<_, _>>()?,
            ports: self.ports.into_iter().map(port).collect(),
            subject_alt_names: self.subject_alt_names,
            waypoint: self.waypoint.map(|it| it.message("waypoint")).transpose()?,
            load_balancing: self.load_balancer.map(balancing),
            ip_families: self.ip_families as i32,
            canonical: self.canonical,
            visibility: self.visibility as i32,
            ..proto::Service::default()
        })
    }
}
