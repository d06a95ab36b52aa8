//! EndpointSlices.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{is_tcp, key, parse_addresses, port, resource};
use crate::facts::{EndpointFacts, Health, SliceFacts, SlicePort, Target};

/// Says which service a slice is of.
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::kube) struct EndpointSlice {
    metadata: ObjectMeta,
    address_type: Option<String>,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    target_ref: Option<TargetRef>,
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    port: Option<i64>,
    protocol: Option<String>,
}

resource!(
    EndpointSlice,
    NamespaceResourceScope,
    "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices"
);

impl From<EndpointSlice> for SliceFacts {
    /// A slice of no service, and one of names instead of addresses, has no endpoints.
    fn from(slice: EndpointSlice) -> Self {
        let key = key(&slice.metadata);
        let EndpointSlice { metadata, address_type, endpoints, ports } = slice;
        let labels: BTreeMap<_, _> = metadata.labels.unwrap_or_default();
        let of_names = address_type.as_deref() == Some("FQDN");
        if of_names {
            tracing::warn!(slice = key, "endpoints that are names (FQDN) are not carried");
        }
        let service = labels.get(SERVICE).filter(|_| !of_names).cloned().unwrap_or_default();
        let endpoints = endpoints.unwrap_or_default().into_iter().filter(|_| !service.is_empty());
        let port = |it: Port| {
            let port = port(it.port.filter(|_| is_tcp(it.protocol.as_deref()))?)?;
            Some(SlicePort { name: it.name.unwrap_or_default(), port })
        };
        Self {
            endpoints: endpoints.filter_map(|it| endpoint(&key, it)).collect(),
            ports: ports.unwrap_or_default().into_iter().filter_map(port).collect(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            service,
        }
    }
}

fn endpoint(key: &str, endpoint: Endpoint) -> Option<EndpointFacts> {
    let addresses = parse_addresses("slice", key, endpoint.addresses.iter().map(|it| &**it));
    if addresses.is_empty() {
        return None;
    }
    let pod = endpoint.target_ref.filter(|target| target.kind == "Pod");
    // Not to say whether it is ready means that it is.
    let ready = endpoint.conditions.ready.unwrap_or(true)
        && !endpoint.conditions.terminating.unwrap_or(false);
    Some(EndpointFacts {
        addresses,
        target: pod.map_or(Target::Address, |pod| Target::Pod(pod.name)),
        health: if ready { Health::Ready } else { Health::NotReady },
        node: endpoint.node_name.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(slice: Value) -> SliceFacts {
        serde_json::from_value::<EndpointSlice>(slice).unwrap().into()
    }

    fn slice() -> Value {
        json!({
            "metadata": { "namespace": "shop", "name": "bank-1",
                          "labels": { "kubernetes.io/service-name": "bank" } },
            "addressType": "IPv4",
            "ports": [{ "name": "a", "port": 7000, "protocol": "TCP" },
                      { "port": 7001 }, { "name": "u", "port": 1, "protocol": "UDP" },
                      { "name": "all" }],
            "endpoints": [
                { "addresses": ["10.0.0.2"], "targetRef": { "kind": "Pod", "name": "bank-x" },
                  "conditions": { "ready": false }, "nodeName": "n1" },
                { "addresses": ["192.0.2.7"], "conditions": {} },
                { "addresses": ["192.0.2.8"], "targetRef": { "kind": "Other", "name": "o" },
                  "conditions": { "ready": true, "terminating": true } },
                { "addresses": ["nonsense"] }, {},
            ],
        })
    }

    #[test]
    fn a_slice_is_read_from_what_the_api_sends() {
        let facts = facts(slice());
        assert_eq!((facts.key(), facts.service_key()), ("shop/bank-1".into(), "shop/bank".into()));
        let ports: Vec<_> = facts.ports.iter().map(|port| (&*port.name, port.port)).collect();
        assert_eq!(ports, [("a", 7000), ("", 7001)]);
        let endpoints: Vec<_> =
            facts.endpoints.into_iter().map(|it| (it.target, it.health)).collect();
        assert_eq!(
            endpoints,
            [
                (Target::Pod("bank-x".into()), Health::NotReady),
                (Target::Address, Health::Ready),
                (Target::Address, Health::NotReady),
            ]
        );
    }

    #[test]
    fn slices_of_names_or_of_no_service_have_no_endpoints() {
        let mut names = slice();
        names["addressType"] = json!("FQDN");
        let mut alone = slice();
        alone["metadata"]["labels"] = json!({});
        for slice in [names, alone] {
            assert_eq!(facts(slice).endpoints, []);
        }
    }
}
