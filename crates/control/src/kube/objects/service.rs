//! Services.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::{is_tcp, key, parse_addresses, port, resource};
use crate::facts::{
    Distribution, Families, Internal, ServiceFacts, ServicePort, ServiceType, TargetPort, Unready,
};

/// Says the same as `spec.trafficDistribution`, which wins.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct Service {
    metadata: ObjectMeta,
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ip_families: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
    selector: Option<BTreeMap<String, String>>,
    traffic_distribution: Option<String>,
    internal_traffic_policy: Option<String>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    port: i64,
    /// A number or a name.
    target_port: Value,
    protocol: Option<String>,
}

resource!(Service, NamespaceResourceScope, "" "v1" "Service" "services");

impl From<Service> for ServiceFacts {
    fn from(service: Service) -> Self {
        let key = key(&service.metadata);
        let Service { metadata, spec } = service;
        let spec = spec.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let distribution =
            spec.traffic_distribution.as_deref().or(annotations.get(DISTRIBUTION).map(|it| &**it));
        Self {
            kind: match spec.r#type.as_deref() {
                Some("ExternalName") => ServiceType::ExternalName,
                _ => ServiceType::Cluster,
            },
            addresses: addresses(&key, &spec),
            ports: ports(&key, spec.ports.unwrap_or_default()),
            families: families(&spec.ip_families.unwrap_or_default()),
            distribution: distribution.map_or(Distribution::Any, |it| parse_distribution(&key, it)),
            internal: match spec.internal_traffic_policy.as_deref() {
                Some("Local") => Internal::Local,
                _ => Internal::Cluster,
            },
            unready: match spec.publish_not_ready_addresses {
                Some(true) => Unready::Published,
                _ => Unready::LeftOut,
            },
            selector: spec.selector.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
        }
    }
}

fn addresses(key: &str, spec: &Spec) -> Vec<std::net::IpAddr> {
    let all = spec.cluster_ips.iter().flatten().map(String::as_str);
    let mut texts: Vec<_> = all.collect();
    if texts.is_empty() {
        texts.extend(spec.cluster_ip.as_deref());
    }
    let virtual_ones = texts.into_iter().filter(|text| !text.is_empty() && *text != "None");
    parse_addresses("service", key, virtual_ones)
}

fn ports(key: &str, declared: Vec<Port>) -> Vec<ServicePort> {
    let tcp = declared.into_iter().filter(|it| is_tcp(it.protocol.as_deref()));
    tcp.filter_map(|declared| {
        let (number, name) = (declared.port, declared.name.clone().unwrap_or_default());
        let read = service_port(declared);
        if read.is_none() {
            tracing::warn!(service = key, number, name, "not a port, left out: correct the object");
        }
        read
    })
    .collect()
}

fn service_port(declared: Port) -> Option<ServicePort> {
    let number = port(declared.port)?;
    let target = match declared.target_port {
        Value::Null => TargetPort::Number(number),
        // The API writes 0 for a target that was left out.
        Value::Number(target) if target.as_i64() == Some(0) => TargetPort::Number(number),
        Value::Number(target) => TargetPort::Number(port(target.as_i64()?)?),
        Value::String(name) if !name.is_empty() => TargetPort::Name(name),
        _ => return None,
    };
    Some(ServicePort { name: declared.name.unwrap_or_default(), port: number, target })
}

fn families(named: &[String]) -> Families {
    match named {
        [one] if one == "IPv4" => Families::V4,
        [one] if one == "IPv6" => Families::V6,
        [_, _] => Families::Dual,
        _ => Families::Unknown,
    }
}

/// The annotation's users write it in any case.
fn parse_distribution(key: &str, text: &str) -> Distribution {
    match text.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => Distribution::SameZone,
        "prefersamenode" => Distribution::SameNode,
        "any" | "" => Distribution::Any,
        _ => {
            tracing::warn!(
                service = key,
                text,
                "unknown traffic distribution, none is preferred: PreferSameZone, \
                 PreferSameNode and PreferClose are known"
            );
            Distribution::Any
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn facts(spec: &Value) -> ServiceFacts {
        let metadata = json!({ "namespace": "shop", "name": "cart" });
        let service = json!({ "metadata": metadata, "spec": spec });
        serde_json::from_value::<Service>(service).unwrap().into()
    }

    #[test]
    fn a_service_is_read_from_what_the_api_sends() {
        let facts = facts(&json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "internalTrafficPolicy": "Cluster",
            "selector": { "app": "cart" },
            "ports": [
                { "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" },
                { "name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP" },
            ],
        }));
        assert_eq!(facts, testing::service("shop", "cart"));
    }

    #[test]
    fn addresses_and_families() {
        let both =
            json!({ "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"] });
        assert_eq!(facts(&both).addresses.len(), 2);
        assert_eq!(facts(&both).families, Families::Dual);
        for (spec, count) in [
            (json!({ "clusterIP": "10.96.0.1" }), 1),
            (json!({ "clusterIP": "None", "clusterIPs": ["None"] }), 0),
            (json!({ "clusterIPs": ["nonsense", "fd00::1"] }), 1),
            (json!({}), 0),
        ] {
            assert_eq!(facts(&spec).addresses.len(), count, "{spec}");
        }
        assert_eq!(facts(&json!({ "ipFamilies": ["IPv6"] })).families, Families::V6);
        assert_eq!(facts(&json!({ "type": "ExternalName" })).kind, ServiceType::ExternalName);
    }

    #[test]
    fn targets_are_numbers_names_or_the_port_itself() {
        let facts = facts(&json!({ "ports": [
            { "port": 1, "targetPort": "web" }, { "port": 2 }, { "port": 3, "targetPort": 0 },
            { "port": 70000 }, { "port": 5, "targetPort": [] }, { "port": 6, "targetPort": 7 },
        ] }));
        let targets: Vec<_> = facts.ports.into_iter().map(|it| (it.port, it.target)).collect();
        assert_eq!(
            targets,
            [
                (1, TargetPort::Name("web".into())),
                (2, TargetPort::Number(2)),
                (3, TargetPort::Number(3)),
                (6, TargetPort::Number(7)),
            ]
        );
    }

    #[test]
    fn who_is_preferred_and_who_may_be_used() {
        for (text, wanted) in [
            ("PreferClose", Distribution::SameZone),
            ("PreferSameZone", Distribution::SameZone),
            ("PreferSameNode", Distribution::SameNode),
            ("Sideways", Distribution::Any),
        ] {
            assert_eq!(facts(&json!({ "trafficDistribution": text })).distribution, wanted);
            let annotated: Service = serde_json::from_value(json!({ "metadata": {
                "annotations": { DISTRIBUTION: text.to_lowercase() },
            } }))
            .unwrap();
            assert_eq!(ServiceFacts::from(annotated).distribution, wanted, "{text}");
        }
        let strict = json!({ "internalTrafficPolicy": "Local", "publishNotReadyAddresses": true });
        let strict = facts(&strict);
        assert_eq!((strict.internal, strict.unready), (Internal::Local, Unready::Published));
    }
}
