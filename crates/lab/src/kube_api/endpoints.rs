//! What a controller does in a cluster: the pods that a service selects are written into
//! slices of it, and what nobody selects any more is taken out. It runs under the lock,
//! after every write, so nobody ever sees a pod without its slice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::action::Place;
use super::kinds::endpoint_slices::{ENDPOINT_SLICES, STORAGE};
use super::kinds::{pods, services};
use super::meta;
use super::status::Refusal;
use super::store::{Key, Store};
use super::writes::{self, Writer};

/// Marks the slices that are filled here; others are left alone.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.lab";
const SERVICE: &str = "kubernetes.io/service-name";

/// Brings the slices of all services up to date.
pub(crate) fn settle(store: &mut Store, writer: Writer) {
    let wanted = wanted(store);
    let stale: Vec<Key> = store
        .objects(STORAGE, None)
        .filter(|(key, slice)| {
            slice["metadata"]["labels"][MANAGED_BY] == MANAGER && !wanted.contains_key(key)
        })
        .map(|(key, _)| key.clone())
        .collect();
    stale.iter().for_each(|key| store.remove(key));
    for (key, slice) in wanted {
        if let Err(refusal) = write(store, writer, &key, slice) {
            tracing::warn!(key.namespace, key.name, %refusal, "a slice was not written");
        }
    }
}

fn write(store: &mut Store, writer: Writer, key: &Key, mut slice: Value) -> Result<(), Refusal> {
    let place = Place {
        resource: &ENDPOINT_SLICES,
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
    };
    let Some(there) = store.get(key) else {
        return writes::create(store, writer, &place, &slice).map(drop);
    };
    if ["endpoints", "ports"].iter().all(|field| there[field] == slice[field]) {
        return Ok(());
    }
    meta::carry_over(there, &mut slice, &["resourceVersion", "managedFields"]);
    writes::update(store, writer, &place, super::action::Part::Main, &slice).map(drop)
}

fn wanted(store: &Store) -> BTreeMap<Key, Value> {
    let mut wanted = BTreeMap::new();
    for (key, service) in store.objects(services::STORAGE, None) {
        let selector = service.pointer("/spec/selector").and_then(Value::as_object);
        let selector = selector.filter(|selector| !selector.is_empty());
        if selector.is_none() || service["spec"]["type"] == "ExternalName" {
            continue;
        }
        let selects = |pod: &Value| {
            let labels = &pod["metadata"]["labels"];
            selector.into_iter().flatten().all(|(key, value)| labels[key] == *value)
        };
        let all = store.objects(pods::STORAGE, Some(&key.namespace)).map(|(_, pod)| &**pod);
        let selected: Vec<&Value> = all.filter(|pod| selects(pod) && !has_ended(pod)).collect();
        for (name, slice) in slices(service, &selected) {
            let namespace = key.namespace.clone();
            wanted.insert(Key { storage: STORAGE, namespace, name }, slice);
        }
    }
    wanted
}

fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&meta::text(pod, "/status/phase"))
}

/// One slice for each family and each set of ports: a named port may have another number
/// in each pod.
fn slices(service: &Value, pods: &[&Value]) -> Vec<(String, Value)> {
    let families = service.pointer("/spec/ipFamilies").and_then(Value::as_array);
    let mut slices = Vec::new();
    for family in families.into_iter().flatten().filter_map(Value::as_str) {
        let mut by_ports: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for pod in pods {
            let Some(address) = address(pod, family) else { continue };
            let ports = ports(service, pod);
            let group = by_ports.entry(ports.to_string()).or_insert((ports, Vec::new()));
            group.1.push(endpoint(service, pod, address));
        }
        for (index, (ports, endpoints)) in by_ports.into_values().enumerate() {
            let name = format!("{}-{}-{index}", meta::name(service), family.to_lowercase());
            let slice = json!({
                "metadata": {
                    "name": name,
                    "labels": { SERVICE: meta::name(service), MANAGED_BY: MANAGER },
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Service", "name": meta::name(service),
                        "uid": meta::uid(service), "controller": true,
                    }],
                },
                "addressType": family, "endpoints": endpoints, "ports": ports,
            });
            slices.push((name, slice));
        }
    }
    slices
}

fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = pod.pointer("/status/podIPs").and_then(Value::as_array)?;
    let texts = all.iter().filter_map(|entry| entry["ip"].as_str());
    let of_family = |text: &&str| {
        text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() == (family == "IPv4"))
    };
    texts.into_iter().find(of_family)
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    let serving = conditions.into_iter().flatten().any(is_ready);
    let terminating = meta::is_terminating(pod);
    let published = service["spec"]["publishNotReadyAddresses"] == true;
    json!({
        "addresses": [address],
        "conditions": {
            "ready": published || (serving && !terminating),
            "serving": serving, "terminating": terminating,
        },
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod", "namespace": meta::namespace(pod), "name": meta::name(pod),
            "uid": meta::uid(pod),
        },
    })
}

/// The service's ports with the numbers that they have in this pod.
fn ports(service: &Value, pod: &Value) -> Value {
    let number = |port: &Value| match port["targetPort"].as_str() {
        None => Some(port["targetPort"].clone()),
        Some(name) => {
            let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
            let mut declared = containers.iter().filter_map(|it| it["ports"].as_array()).flatten();
            declared.find(|it| it["name"] == name).map(|it| it["containerPort"].clone())
        }
    };
    let named = services::ports(service).iter().filter_map(|port| {
        let name = meta::text(port, "/name");
        Some(json!({ "name": name, "port": number(port)?, "protocol": port["protocol"] }))
    });
    Value::Array(named.collect())
}
