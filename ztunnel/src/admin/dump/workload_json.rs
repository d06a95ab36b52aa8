//! Workloads as Istio's dump has them.

use std::net::IpAddr;

use mesh::{
    ApplicationTunnel, Gateway, GatewayDestination, Health, Locality, Protocol, TunnelledProtocol,
    Workload, WorkloadKind,
};
use serde::{Serialize, Serializer};

/// A workload. What is empty is left out where Istio leaves it out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadJson<'a> {
    workload_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayJson<'a>>,
    protocol: &'static str,
    network_mode: &'static str,
    uid: &'a str,
    name: &'a str,
    namespace: &'a str,
    trust_domain: &'a str,
    service_account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    workload_name: &'a str,
    workload_type: &'static str,
    canonical_name: &'a str,
    canonical_revision: &'a str,
    hostname: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    native_tunnel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<TunnelJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_policies: Vec<String>,
    status: &'static str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "LocalityJson::is_empty")]
    locality: LocalityJson<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<String>,
    capacity: u32,
}

impl<'a> WorkloadJson<'a> {
    pub(super) fn of(workload: &'a Workload) -> Self {
        Self {
            workload_ips: &workload.addresses,
            waypoint: workload.waypoint.as_deref().map(GatewayJson::of),
            network_gateway: workload.network_gateway.as_deref().map(GatewayJson::of),
            protocol: match workload.protocol {
                Protocol::Hbone => "HBONE",
                Protocol::Plain => "TCP",
            },
            network_mode: if workload.host_network { "HostNetwork" } else { "Standard" },
            uid: workload.uid(),
            name: workload.name(),
            namespace: &workload.namespace,
            trust_domain: workload.identity.trust_domain(),
            service_account: workload.identity.service_account(),
            network: &workload.network,
            workload_name: &workload.owner,
            workload_type: kind(workload.kind),
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            hostname: &workload.hostname,
            node: &workload.node,
            native_tunnel: workload.native_tunnel,
            application_tunnel: workload.application_tunnel.map(TunnelJson::of),
            authorization_policies: workload.policies.iter().map(ToString::to_string).collect(),
            status: health(workload.health),
            cluster_id: &workload.cluster,
            locality: LocalityJson::of(&workload.locality),
            services: workload.services.iter().map(|it| it.service.to_string()).collect(),
            capacity: workload.capacity,
        }
    }
}

fn kind(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployment",
        WorkloadKind::CronJob => "cronjob",
        WorkloadKind::Pod => "pod",
        WorkloadKind::Job => "job",
    }
}

pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

/// Where traffic makes a stop: `network/ip`, or `namespace/hostname`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayJson<'a> {
    #[serde(serialize_with = "destination")]
    destination: &'a GatewayDestination,
    hbone_mtls_port: u16,
}

impl<'a> GatewayJson<'a> {
    pub(super) fn of(gateway: &'a Gateway) -> Self {
        Self { destination: &gateway.destination, hbone_mtls_port: gateway.hbone_port }
    }
}

fn destination<S: Serializer>(
    destination: &GatewayDestination,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match destination {
        GatewayDestination::Hostname(service) => serializer.collect_str(service),
        GatewayDestination::Address { network, ip } => {
            serializer.collect_str(&format_args!("{network}/{ip}"))
        }
    }
}

#[derive(Serialize)]
struct TunnelJson {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl TunnelJson {
    fn of(tunnel: ApplicationTunnel) -> Self {
        let protocol = match tunnel.protocol {
            TunnelledProtocol::None => "NONE",
            TunnelledProtocol::Proxy => "PROXY",
        };
        Self { protocol, port: tunnel.port }
    }
}

#[derive(Serialize)]
struct LocalityJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    region: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    zone: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subzone: &'a str,
}

impl<'a> LocalityJson<'a> {
    fn of(locality: &'a Locality) -> Self {
        let Locality { region, zone, subzone } = locality;
        Self { region, zone, subzone }
    }

    fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}
