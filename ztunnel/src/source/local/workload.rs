//! A workload in YAML.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh::proto::workload as proto;
use serde::Deserialize;

use super::text::{Gateway, octets};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    uid: String,
    name: String,
    namespace: String,
    #[serde(default)]
    service_account: String,
    #[serde(default)]
    trust_domain: String,
    #[serde(default)]
    workload_ips: Vec<IpAddr>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    network: String,
    #[serde(default)]
    network_mode: NetworkMode,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    native_tunnel: bool,
    #[serde(default)]
    node: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    canonical_name: String,
    #[serde(default)]
    canonical_revision: String,
    #[serde(default)]
    workload_name: String,
    #[serde(default)]
    workload_type: Kind,
    waypoint: Option<Gateway>,
    network_gateway: Option<Gateway>,
    application_tunnel: Option<Tunnel>,
    /// `namespace/hostname` to service port to target port.
    #[serde(default)]
    services: BTreeMap<String, BTreeMap<u16, u16>>,
    #[serde(default)]
    authorization_policies: Vec<String>,
    #[serde(default)]
    status: Status,
    capacity: Option<u32>,
    locality: Option<Locality>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Plain = 0,
    #[serde(rename = "HBONE")]
    Hbone = 1,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum NetworkMode {
    #[default]
    Standard = 0,
    HostNetwork = 1,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Deployment = 0,
    CronJob = 1,
    #[default]
    Pod = 2,
    Job = 3,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Status {
    #[default]
    Healthy = 0,
    Unhealthy = 1,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tunnel {
    protocol: TunnelProtocol,
    #[serde(default)]
    port: u16,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum TunnelProtocol {
    None = 0,
    Proxy = 1,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Locality {
    region: String,
    zone: String,
    subzone: String,
}

impl Entry {
    pub(super) fn message(self) -> Result<proto::Workload, String> {
        let gateway = |key, gateway: Option<Gateway>| gateway.map(|it| it.message(key)).transpose();
        let tunnel = |tunnel: Tunnel| proto::ApplicationTunnel {
            protocol: tunnel.protocol as i32,
            port: tunnel.port.into(),
        };
        let Locality { region, zone, subzone } = self.locality.unwrap_or_default();
        Ok(proto::Workload {
            uid: self.uid,
            name: self.name,
            namespace: self.namespace,
            addresses: self.workload_ips.into_iter().map(octets).collect(),
            hostname: self.hostname,
            network: self.network,
            tunnel_protocol: self.protocol as i32,
            trust_domain: self.trust_domain,
            service_account: self.service_account,
            waypoint: gateway("waypoint", self.waypoint)?,
            network_gateway: gateway("networkGateway", self.network_gateway)?,
            node: self.node,
            canonical_name: self.canonical_name,
            canonical_revision: self.canonical_revision,
            workload_type: self.workload_type as i32,
            workload_name: self.workload_name,
            native_tunnel: self.native_tunnel,
            application_tunnel: self.application_tunnel.map(tunnel),
            services: self.services.into_iter().map(|(key, it)| (key, ports(it))).collect(),
            authorization_policies: self.authorization_policies,
            status: self.status as i32,
            cluster_id: self.cluster_id,
            locality: Some(proto::Locality { region, zone, subzone }),
            network_mode: self.network_mode as i32,
            extensions: Vec::new(),
            capacity: self.capacity,
        })
    }
}

fn ports(ports: BTreeMap<u16, u16>) -> proto::PortList {
    proto::PortList { ports: ports.into_iter().map(port).collect() }
}

pub(super) fn port((service, target): (u16, u16)) -> proto::Port {
    proto::Port {
        service_port: service.into(),
        target_port: target.into(),
        ..proto::Port::default()
    }
}
