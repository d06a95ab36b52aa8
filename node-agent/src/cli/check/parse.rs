//! PURE. From objects of the API to facts.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::facts::{CiliumSettings, NodeInfo, Pod};
use super::policy::{Policy, Ports, Rule, Selector};
use crate::kube::pod_facts;
use crate::rules::PROBE_SOURCE_V4;

/// A pod with its containers' ports.
pub(super) fn pod(object: &Value) -> Option<Pod> {
    let containers = object["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
    let ports =
        ports.filter_map(|port| Some((text(port, "name"), number(&port["containerPort"])?)));
    Some(Pod { ports: ports.collect(), facts: pod_facts(object)? })
}

/// A node.
pub(super) fn node(object: &Value) -> NodeInfo {
    let info = &object["status"]["nodeInfo"];
    let said = |key: &str| text(info, key).unwrap_or_else(|| "unknown".into());
    NodeInfo {
        name: text(&object["metadata"], "name").unwrap_or_default(),
        kernel: said("kernelVersion"),
        runtime: said("containerRuntimeVersion"),
        kubelet: said("kubeletVersion"),
    }
}

/// A ConfigMap of Cilium's settings.
pub(super) fn cilium(object: &Value) -> CiliumSettings {
    let data = object["data"].as_object().into_iter().flatten();
    let values = data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    CiliumSettings { from: format!("ConfigMap {}", name(object)), values: values.collect() }
}

/// The mode in kube-proxy's ConfigMap, which has a file in it. An empty mode is the default.
pub(super) fn proxy_mode(object: &Value) -> Option<String> {
    let file = object["data"].get("config.conf").and_then(Value::as_str)?;
    let file: Value = serde_yaml_ng::from_str(file).ok()?;
    let mode = text(&file, "mode").unwrap_or_default();
    Some(if mode.is_empty() { "iptables".into() } else { mode })
}

/// A `NetworkPolicy` of Kubernetes.
pub(super) fn network_policy(object: &Value) -> Vec<Policy> {
    let spec = &object["spec"];
    let types: Vec<&str> = strings(&spec["policyTypes"]);
    let egress = spec["egress"].is_array();
    let counts = |direction: &str, default: &[&str]| {
        if types.is_empty() { default.contains(&direction) } else { types.contains(&direction) }
    };
    let default: &[&str] = if egress { &["Ingress", "Egress"] } else { &["Ingress"] };
    let rules =
        |key: &str, peers: &str| list(&spec[key]).map(|rule| kube_rule(rule, peers)).collect();
    vec![Policy {
        name: format!("NetworkPolicy {}", name(object)),
        namespace: text(&object["metadata"], "namespace"),
        selector: Selector::Labels(spec["podSelector"].clone()),
        ingress: counts("Ingress", default).then(|| rules("ingress", "from")),
        egress: counts("Egress", default).then(|| rules("egress", "to")),
    }]
}

fn kube_rule(rule: &Value, peers: &str) -> Rule {
    let ports: Vec<Ports> = list(&rule["ports"])
        .map(|port| {
            let first = number(&port["port"]);
            let last = number(&port["endPort"]).or(first);
            Ports {
                tcp: port["protocol"].as_str().is_none_or(|it| it == "TCP"),
                range: first.zip(last),
                name: text(port, "port").filter(|_| first.is_none()),
            }
        })
        .collect();
    let peers = list(&rule[peers]).cloned().collect();
    Rule { peers, ports: (!ports.is_empty()).then_some(ports), looks_inside: false }
}

/// A policy of Cilium, which may hold several.
pub(super) fn cilium_policy(object: &Value) -> Vec<Policy> {
    let kind = object["kind"].as_str().unwrap_or("Cilium policy");
    let specs = [&object["spec"]].into_iter().chain(list(&object["specs"]));
    let for_pods = specs.filter(|spec| spec["endpointSelector"].is_object());
    let one = |spec: &Value| {
        let rules = |key: &str| {
            let rules = spec[key].as_array()?;
            // Without a default of denial it only adds.
            let denies = spec["enableDefaultDeny"][key].as_bool() != Some(false);
            denies.then(|| rules.iter().flat_map(cilium_rules).collect())
        };
        Policy {
            name: format!("{kind} {}", name(object)),
            namespace: text(&object["metadata"], "namespace"),
            selector: Selector::Labels(spec["endpointSelector"].clone()),
            ingress: rules("ingress"),
            egress: rules("egress"),
        }
    };
    for_pods.map(one).collect()
}

/// All keys but those of ports say from or to whom.
fn cilium_rules(rule: &Value) -> Vec<Rule> {
    const PORTS: [&str; 2] = ["toPorts", "icmps"];
    const OUTSIDE: [&str; 3] = ["toCIDR", "toCIDRSet", "toFQDNs"];
    let peer = |(key, value): (&String, &Value)| {
        let key = if OUTSIDE.contains(&key.as_str()) { "outside" } else { key.as_str() };
        serde_json::json!({ key: value })
    };
    let keys = rule.as_object().into_iter().flatten();
    let keys = keys.filter(|(key, _)| !PORTS.contains(&key.as_str()));
    let peers: Vec<Value> = keys.map(peer).collect();
    let Some(groups) = rule["toPorts"].as_array() else {
        return vec![Rule { peers, ports: None, looks_inside: false }];
    };
    let one = |group: &Value| Rule {
        peers: peers.clone(),
        ports: group["ports"].as_array().map(|ports| ports.iter().map(cilium_port).collect()),
        looks_inside: group["rules"]
            .as_object()
            .is_some_and(|it| it.keys().any(|key| key != "dns")),
    };
    groups.iter().map(one).collect()
}

fn cilium_port(port: &Value) -> Ports {
    let first = number(&port["port"]).filter(|&first| first != 0);
    let last = number(&port["endPort"]).filter(|&last| last != 0).or(first);
    Ports {
        tcp: port["protocol"].as_str().is_none_or(|it| matches!(it, "TCP" | "ANY" | "")),
        range: first.zip(last),
        name: text(port, "port").filter(|it| first.is_none() && it != "0"),
    }
}

/// Its name, if it admits the address that probes have, for pods.
pub(super) fn admits_probes(object: &Value) -> Option<String> {
    let specs = [&object["spec"]].into_iter().chain(list(&object["specs"]));
    let for_pods = specs.filter(|spec| spec["endpointSelector"].is_object());
    let mut cidrs = for_pods.flat_map(|spec| list(&spec["ingress"])).flat_map(|rule| {
        let sets = list(&rule["fromCIDRSet"]).filter_map(|set| set["cidr"].as_str());
        sets.chain(strings(&rule["fromCIDR"])).collect::<Vec<_>>()
    });
    let has = |cidr: &str| {
        cidr.parse::<IpNetwork>().is_ok_and(|cidr| cidr.contains(PROBE_SOURCE_V4.into()))
    };
    cidrs.any(has).then(|| format!("CiliumClusterwideNetworkPolicy {}", name(object)))
}

/// A policy of Calico. What it denies by rule is not looked at.
pub(super) fn calico_policy(object: &Value) -> Vec<Policy> {
    let spec = &object["spec"];
    let types = strings(&spec["types"]);
    let counts = |direction: &str, key: &str| {
        types.contains(&direction) || types.is_empty() && spec[key].is_array()
    };
    let rules = |key: &str| {
        let allowed = list(&spec[key]).filter(|rule| rule["action"] == "Allow");
        allowed.map(calico_rule).collect()
    };
    let global = object["metadata"]["namespace"].is_null();
    let kind = if global { "Calico's GlobalNetworkPolicy" } else { "Calico's NetworkPolicy" };
    // Namespaces and accounts may narrow it down further, which is not followed here.
    let narrowed = ["namespaceSelector", "serviceAccountSelector"];
    let narrowed = narrowed.iter().any(|key| text(spec, key).is_some_and(|it| !it.is_empty()));
    let selector = text(spec, "selector").unwrap_or_else(|| "all()".into());
    vec![Policy {
        name: format!("{kind} {}", name(object)),
        namespace: text(&object["metadata"], "namespace"),
        selector: Selector::Expression(if narrowed {
            format!("{selector} || …")
        } else {
            selector
        }),
        ingress: counts("Ingress", "ingress").then(|| rules("ingress")),
        egress: counts("Egress", "egress").then(|| rules("egress")),
    }]
}

/// Destination ports count in both directions. Ranges are written `1:9`.
fn calico_rule(rule: &Value) -> Rule {
    let destination = &rule["destination"];
    let tcp = rule["protocol"].is_null() || rule["protocol"] == "TCP" || rule["protocol"] == 6;
    let port = |port: &Value| {
        let said = port.as_str().unwrap_or_default();
        let range =
            said.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let range = range.or_else(|| number(port).map(|it| (it, it)));
        let name = (range.is_none() && !said.is_empty()).then(|| said.to_owned());
        Ports { tcp, range, name }
    };
    let mut ports: Vec<Ports> = list(&destination["ports"]).map(port).collect();
    if ports.is_empty() && !tcp {
        ports.push(Ports { tcp: false, range: None, name: None });
    }
    let mut peers = Vec::new();
    let mut narrowed = destination.clone();
    if let Some(keys) = narrowed.as_object_mut() {
        keys.remove("ports");
    }
    for (key, peer) in [("source", rule["source"].clone()), ("destination", narrowed)] {
        if peer.as_object().is_some_and(|it| !it.is_empty()) {
            peers.push(serde_json::json!({ key: peer }));
        }
    }
    Rule {
        peers,
        ports: (!ports.is_empty()).then_some(ports),
        looks_inside: rule["http"].is_object(),
    }
}

/// Namespace and name.
pub(super) fn name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = text(metadata, "name").unwrap_or_default();
    match text(metadata, "namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

fn text(object: &Value, key: &str) -> Option<String> {
    object[key].as_str().map(str::to_owned)
}

/// A port, also one that is written as a text.
fn number(value: &Value) -> Option<u16> {
    let written = value.as_str().and_then(|text| text.parse().ok());
    written.or_else(|| u16::try_from(value.as_u64()?).ok())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).filter_map(Value::as_str).collect()
}
